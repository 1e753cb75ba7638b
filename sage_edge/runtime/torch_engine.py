"""A torch network as an engine: for plugins of one's own, on a workstation. Imported by whoever wants it.

Arrays cross by DLPack, without a copy. torch is imported when an engine is made, never before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.errors import EngineError
from sage_edge.irp.engine import Enqueue, Tensors, TensorSpec, require_ends

#: Passes before a capture: torch and its libraries choose algorithms and allocate during the first ones.
WARM_UP_PASSES = 3


class TorchEngine:
    """An ``nn.Module``, or a program of ``torch.export``, with the interface of ``OnnxEngine``.

    ``run`` takes host arrays and waits. A loop on the device binds tensors of its own.

    Threads: ``run`` may be called from several threads; calls take turns.
    """

    def __init__(
        self,
        network: Any,
        *,
        inputs: Mapping[str, Sequence[int]],
        outputs: Sequence[str],
        device: str = "cpu",
    ) -> None:
        """Put a network on a device, for inference.

        Args:
            network: Called with the inputs in order; returns a tensor, or a sequence in the order of outputs.
            inputs: Shape of each input without the batch, by name.
            outputs: Names of what it returns.
            device: A torch device, such as "cpu" or "cuda:0".

        Raises:
            EngineError: torch is not installed, the device is not here, or the network is of another kind.
        """
        self._torch = torch = _import_torch()
        if isinstance(network, torch.export.ExportedProgram):
            network = network.module()  # already in the mode that it was exported in
        elif isinstance(network, torch.nn.Module):
            network = network.eval()
        else:
            raise EngineError(
                f"torch: expected an nn.Module or ExportedProgram, got {type(network).__name__}"
            )
        try:
            self._device = torch.device(device)
            self._network: Callable[..., Any] = network.to(self._device)
        except (RuntimeError, AssertionError) as exc:
            raise EngineError(f"torch: device {device!r} cannot be used: {exc}") from exc
        self.backend = f"torch-{self._device.type}"
        self.inputs = {name: ("batch", *shape) for name, shape in inputs.items()}
        self.outputs = list(outputs)
        self._turn = threading.Lock()

    def require(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Check the names of the network's ends.

        Raises:
            EngineError: A name is missing or unexpected.
        """
        require_ends(self, inputs, outputs)

    def run(self, tensors: Tensors) -> dict[str, NDArray[np.float32]]:
        """Run the network on float32 arrays that share their first axis; returns new arrays by name.

        Raises:
            EngineError: Other names, or another number of results than there are outputs.
        """
        if set(tensors) != set(self.inputs):
            raise EngineError(f"torch: expected inputs {sorted(self.inputs)}, got {sorted(tensors)}")
        with self._turn, self._torch.inference_mode():
            given = [
                self._torch.from_dlpack(_writable(tensors[name])).to(self._device) for name in self.inputs
            ]
            results = self.call(given)
            return {name: np.array(np.from_dlpack(value.cpu())) for name, value in results.items()}

    @cached_property
    def ends(self) -> Mapping[str, TensorSpec]:
        """What ``bind`` wants, by name; found out by one pass over zeros."""
        torch = self._torch
        with self._turn, torch.inference_mode():
            given = [torch.zeros((1, *shape[1:]), device=self._device) for shape in self.inputs.values()]
            made = dict(zip(self.inputs, given, strict=True)) | self.call(given)
        return {
            name: TensorSpec(tuple(value.shape[1:]), np.dtype(str(value.dtype).removeprefix("torch.")))
            for name, value in made.items()
        }

    def bind(self, tensors: Mapping[str, Any]) -> Enqueue:
        """An execution between the tensors, warmed up; see Engine.

        Raises:
            EngineError: Other names.
        """
        execution = self.open(tensors)
        stream = self._torch.cuda.Stream().cuda_stream if self._device.type == "cuda" else 0
        execution.warm_up(stream)
        return execution.enqueue

    def open(self, tensors: Mapping[str, Any]) -> TorchExecution:
        """An execution between tensors of the caller's, who keeps them alive and on this engine's device.

        Args:
            tensors: Anything with ``__dlpack__`` for each input and output, batch included.

        Raises:
            EngineError: Other names.
        """
        return TorchExecution(self, tensors)

    def call(self, given: Sequence[Any]) -> dict[str, Any]:
        """Run the network on tensors; results by name.

        Raises:
            EngineError: Another number of results than there are outputs.
        """
        results = self._network(*given)
        results = [results] if isinstance(results, self._torch.Tensor) else list(results)
        if len(results) != len(self.outputs):
            raise EngineError(f"torch: expected {len(self.outputs)} results, got {len(results)}")
        return dict(zip(self.outputs, results, strict=True))


class TorchExecution:
    """A network between fixed tensors: ``enqueue`` reads the inputs where they lie and writes the outputs.

    On a GPU everything it needs in between comes from a memory pool of its own, which no other work of torch
    uses: a graph that is captured from ``enqueue`` stays valid as long as the execution lives. The network
    must not wait for the device (``.item()``, sizes that depend on data).

    Threads: one at a time.
    """

    def __init__(self, engine: TorchEngine, tensors: Mapping[str, Any]) -> None:
        expected = [*engine.inputs, *engine.outputs]
        if set(tensors) != set(expected):
            raise EngineError(f"torch: expected tensors {sorted(expected)}, got {sorted(tensors)}")
        self._engine = engine
        self._torch = torch = _import_torch()
        bound = {name: torch.from_dlpack(tensor) for name, tensor in tensors.items()}
        self._given = [bound[name] for name in engine.inputs]
        self._targets = {name: bound[name] for name in engine.outputs}
        self._pool = torch.cuda.MemPool() if bound[expected[0]].is_cuda else None

    def enqueue(self, stream_handle: int) -> None:
        """Put one pass onto a CUDA stream and return at once; on the CPU run it now, whatever the handle."""
        with self._torch.inference_mode(), self._on_stream(stream_handle):
            for name, value in self._engine.call(self._given).items():
                self._targets[name].copy_(value)

    def warm_up(self, stream_handle: int) -> None:
        """Run some passes and wait for them, so that a capture finds everything chosen and allocated."""
        for _ in range(WARM_UP_PASSES):
            self.enqueue(stream_handle)
        if self._pool is not None:
            self._torch.cuda.ExternalStream(stream_handle).synchronize()

    @contextmanager
    def _on_stream(self, handle: int) -> Iterator[None]:
        with ExitStack() as stack:
            if self._pool is not None:
                cuda = self._torch.cuda
                stack.enter_context(cuda.stream(cuda.ExternalStream(handle)))
                stack.enter_context(cuda.use_mem_pool(self._pool))
            yield


def _import_torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as exc:
        if exc.name != "torch":
            raise
        raise EngineError(
            "torch is not installed: pip install 'sage-edge[training]', or any torch >= 2.6"
        ) from exc
    return torch


def _writable(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """What torch can take by DLPack: it refuses a read-only array."""
    return array if array.flags.writeable else array.copy()
