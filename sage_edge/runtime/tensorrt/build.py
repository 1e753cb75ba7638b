"""From an ONNX file to a plan. The precision is in the file's types; no builder flag changes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sage_edge.errors import EngineError
from sage_edge.runtime.building import Built
from sage_edge.runtime.tensorrt.api import TensorRT

#: To be raised when a change here gives other plans from the same file; part of every plan's key.
BUILDER_VERSION = 1
#: What one layer may use while it runs. A board shares its memory with the CPU.
WORKSPACE_BYTES = 512 << 20


def build_plan(
    tensorrt: TensorRT, onnx: bytes, width: int, advance: Callable[[float], bool], timing_cache: bytes
) -> Built:
    """Build a strongly typed plan that can be captured: static shapes, no auxiliary streams.

    Args:
        tensorrt: Builds for the GPU that is current.
        onnx: An ONNX file whose first axis is the batch.
        width: The batch.
        advance: Told how far the build has come, in [0, 1]; returns whether to go on.
        timing_cache: What an earlier build measured on this machine.

    Raises:
        EngineError: The file cannot be parsed, its types do not agree, or the build was called off.
    """
    trt = tensorrt.module
    tensorrt.logger.forget()
    builder = trt.Builder(tensorrt.logger)
    # In TensorRT 11 every network is strongly typed and the flag is ignored; its number has changed.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, tensorrt.logger)
    if not parser.parse(onnx):
        raise EngineError(f"TensorRT cannot parse the ONNX file: {_first_finding(parser)}")
    _fix_batch(network, width)
    config = builder.create_builder_config()
    config.max_aux_streams = 0
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 means float32, as on the CPU
    monitor = _make_monitor(trt, advance)
    config.progress_monitor = monitor
    cache = None if tensorrt.is_rtx else _attach_cache(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT cannot build the plan: {tensorrt.logger.why()}")
    return Built(bytes(plan), b"" if cache is None else bytes(cache.serialize()))


def _attach_cache(config: Any, content: bytes) -> Any:
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        raise EngineError("TensorRT refuses the timing cache: delete the .timing files in engine_dir")
    return cache


def _fix_batch(network: Any, width: int) -> None:
    """Give every input its batch, and with it every tensor a static shape."""
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        tensor.shape = (width, *tuple(tensor.shape)[1:])
    for number in range(network.num_outputs):
        tensor = network.get_output(number)
        if any(size < 0 for size in tensor.shape):
            raise EngineError(
                f"{tensor.name}: expected a static shape once the batch is {width}, got {tuple(tensor.shape)}"
            )


def _first_finding(parser: Any) -> str:
    if parser.num_errors == 0:
        return "no reason given"
    finding = parser.get_error(0)
    reason = finding.desc().splitlines()[:2]  # which node, and what is wrong; then come the consequences
    return f"node {finding.node()}: {': '.join(reason)}"


def _make_monitor(trt: Any, advance: Callable[[float], bool]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc] # the module is known only now
        """Adds nested phases up to one fraction."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases = Phases()

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            """Called by TensorRT when a phase begins."""
            self.phases.start(name, parent, steps)

        def step_complete(self, name: str, step: int) -> bool:
            """Called by TensorRT after each step; False ends the build."""
            return advance(self.phases.step(name, step))

        def phase_finish(self, name: str) -> None:
            """Called by TensorRT when a phase has ended."""
            self.phases.finish(name)

    return Monitor()


class Phases:
    """Nested phases of a build. A phase has steps; its unfinished step is as far as the phases inside it."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str | None, int, int]] = {}
        self._reached = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, inside a parent unless that is None."""
        self._open[name] = (parent, steps, 0)

    def step(self, name: str, step: int) -> float:
        """A phase's step, from 0, is complete; returns the whole's fraction, which never falls."""
        if name in self._open:
            parent, steps, _ = self._open[name]
            self._open[name] = (parent, steps, step + 1)
        self._reached = max(self._reached, min(1.0, self._fraction(None)))
        return self._reached

    def finish(self, name: str) -> None:
        """A phase has ended."""
        self._open.pop(name, None)

    def _fraction(self, parent: str | None) -> float:
        """How far the phases inside one parent are, the furthest of them counting."""
        inside = [(name, steps, done) for name, (above, steps, done) in self._open.items() if above == parent]
        return max(
            ((done + self._rest(name, steps, done)) / steps for name, steps, done in inside), default=0.0
        )

    def _rest(self, name: str, steps: int, done: int) -> float:
        return min(1.0, self._fraction(name)) if done < steps else 0.0
