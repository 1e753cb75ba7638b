"""Loaded plans: capturable work on raw device pointers, and the same on host arrays."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, SupportsInt

import numpy as np
from numpy.typing import NDArray

from sage_edge.errors import EngineError
from sage_edge.irp.engine import Enqueue, Tensors, TensorSpec, require_ends
from sage_edge.irp.recipe import Recipe
from sage_edge.runtime.tensorrt.api import TensorRT
from sage_edge.runtime.tensorrt.device import Device

#: What TensorRT asks of every address that it is given.
ALIGNMENT_BYTES = 256


class PlanTensor(NamedTuple):
    """One end of a network, with its static shape."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_input: bool

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole batch."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class LoadedPlan:
    """One deserialized plan. ``open`` gives any number of independent executions of it.

    Threads: ``open`` from one thread at a time, with the device current.
    """

    def __init__(self, tensorrt: TensorRT, device: Device, plan: bytes, name: str) -> None:
        """Deserialize a plan, with the device current.

        Raises:
            EngineError: TensorRT refuses it, or it could not be captured: a shape is not static, or it
                wants streams of its own.
        """
        trt = tensorrt.module
        tensorrt.logger.forget()
        self.name = name
        self._tensorrt = tensorrt
        self._device = device
        self._runtime = trt.Runtime(tensorrt.logger)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(f"{name}: TensorRT cannot load the plan: {tensorrt.logger.why()}")
        self._engine = engine
        self.tensors = {
            tensor: self._spec(tensor) for tensor in map(engine.get_tensor_name, range(engine.num_io_tensors))
        }
        self._require_capturable()

    def open(self) -> Execution:
        """An execution with its own context and its own scratch memory, bound to nothing yet."""
        trt = self._tensorrt.module
        context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise EngineError(f"{self.name}: TensorRT made no context: {self._tensorrt.logger.why()}")
        size_bytes = self._engine.device_memory_size_v2
        scratch = self._device.allocate(size_bytes) if size_bytes else None
        if scratch is not None:
            context.set_device_memory(int(scratch), size_bytes)
        return Execution(self, context, scratch, self._device, self._tensorrt.logger)

    def _spec(self, tensor: str) -> PlanTensor:
        trt, engine = self._tensorrt.module, self._engine
        return PlanTensor(
            tuple(engine.get_tensor_shape(tensor)),
            np.dtype(trt.nptype(engine.get_tensor_dtype(tensor))),
            engine.get_tensor_mode(tensor) == trt.TensorIOMode.INPUT,
        )

    def _require_capturable(self) -> None:
        for tensor, spec in self.tensors.items():
            if any(size < 0 for size in spec.shape):
                raise EngineError(f"{self.name}: {tensor}: expected a static shape, got {list(spec.shape)}")
        streams = self._engine.num_aux_streams
        if streams:
            raise EngineError(f"{self.name}: expected a plan without auxiliary streams, got {streams}")


class Execution:
    """One context of a plan, on addresses that its owner keeps alive.

    Threads: one at a time, with the device current.
    """

    def __init__(
        self, plan: LoadedPlan, context: Any, scratch: SupportsInt | None, device: Device, logger: Any
    ) -> None:
        self.tensors = plan.tensors
        self._plan = plan  # the engine outlives its context
        self._context = context
        self._scratch = scratch
        self._device = device
        self._logger = logger
        self._is_bound = False

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Say where every input and output lies. A captured graph keeps the addresses it was captured with.

        Args:
            addresses: Device address of each tensor, of the size and layout of ``tensors``.

        Raises:
            EngineError: A name is missing or unknown, or an address is not aligned to 256 bytes.
        """
        if set(addresses) != set(self.tensors):
            raise EngineError(
                f"{self._plan.name}: expected addresses of {sorted(self.tensors)}, got {sorted(addresses)}"
            )
        for tensor, address in addresses.items():
            if address == 0 or address % ALIGNMENT_BYTES:
                raise EngineError(
                    f"{self._plan.name}: {tensor}: expected an address aligned to {ALIGNMENT_BYTES} bytes, "
                    f"got {address:#x}"
                )
            if not self._context.set_tensor_address(tensor, address):
                raise EngineError(f"{self._plan.name}: {tensor}: {self._logger.why()}")
        self._is_bound = True

    def enqueue(self, stream_handle: int) -> None:
        """Put one pass onto a stream; returns at once. May be captured once ``warm_up`` has run.

        Raises:
            EngineError: Nothing is bound, or TensorRT refuses.
        """
        if not self._is_bound:
            raise EngineError(f"{self._plan.name}: expected bind() before enqueue()")
        if not self._context.execute_async_v3(stream_handle):
            raise EngineError(f"{self._plan.name}: TensorRT did not enqueue: {self._logger.why()}")

    def warm_up(self) -> int:
        """Run once, since what TensorRT prepares in the first pass cannot be captured, then try a capture.

        On a stream of its own, and waits for it: what is bound is read and written.

        Returns:
            How many graph nodes a pass is.

        Raises:
            EngineError: A pass fails, or its capture is empty.
        """
        stream = self._device.stream()
        self.enqueue(stream.handle)
        stream.synchronize()
        nodes = self._device.captured_nodes(self.enqueue, stream)
        if nodes == 0:
            # What the wrong current device leads to, without an error of its own.
            raise EngineError(
                f"{self._plan.name}: its capture is empty; is {self._device.name} the current device?"
            )
        return nodes


class TensorRTEngine:
    """One network on the GPU at several batch widths, with the interface of ``OnnxEngine``.

    ``run`` takes host arrays and waits for the result. A loop on the device binds its own arrays.

    Threads: ``run`` may be called from several threads; calls take turns.
    """

    def __init__(
        self, plans: Mapping[int, LoadedPlan], device: Device, *, backend: str, recipe: Recipe
    ) -> None:
        """Take plans of the same network.

        Args:
            plans: By batch width.
            device: Where they were loaded.
            backend: What runs them, such as "tensorrt-10.3.0".
            recipe: What they were built from.
        """
        self.plans = dict(sorted(plans.items()))
        self.backend = backend
        self.sha256 = recipe.sha256
        self.device = device
        self._name = recipe.name
        self._staged: dict[int, _Staged] = {}
        self._turn = threading.Lock()
        tensors = next(iter(self.plans.values())).tensors
        self.inputs = {name: ("batch", *spec.shape[1:]) for name, spec in tensors.items() if spec.is_input}
        self.outputs = [name for name, spec in tensors.items() if not spec.is_input]

    @property
    def ends(self) -> Mapping[str, TensorSpec]:
        """What ``bind`` wants, by name."""
        tensors = next(iter(self.plans.values())).tensors
        return {name: TensorSpec(spec.shape[1:], spec.dtype) for name, spec in tensors.items()}

    def require(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Check the names of the network's ends.

        Raises:
            EngineError: A name is missing or unexpected.
        """
        require_ends(self, inputs, outputs)

    def run(self, tensors: Tensors) -> dict[str, NDArray[np.float32]]:
        """Run the network on float32 arrays that share their first axis; returns new arrays by name.

        Raises:
            EngineError: More rows than the widest plan, other names or shapes, or a failure on the device.
        """
        rows = self._check(tensors)
        width = next(width for width in self.plans if width >= rows)
        with self._turn, self.device.current():
            if width not in self._staged:
                self._staged[width] = _Staged(self.plans[width], self.device)
            return self._staged[width].run(tensors, rows)

    def bind(self, tensors: Mapping[str, Any]) -> Enqueue:
        """The plan of the tensors' width, between their addresses; see Engine.

        Raises:
            EngineError: There is no plan of that width, or TensorRT refuses an address.
        """
        width = int(next(iter(tensors.values())).shape[0])
        if width not in self.plans:
            raise EngineError(f"{self._name}: expected a plan of width {width}, got {list(self.plans)}")
        with self.device.current():
            execution = self.plans[width].open()
            execution.bind({name: tensor.pointer for name, tensor in tensors.items()})

        def enqueue(stream_handle: int) -> None:
            with self.device.current():
                execution.enqueue(stream_handle)

        return enqueue

    def _check(self, tensors: Tensors) -> int:
        """That the arrays fit; returns their rows."""
        shapes = {name: array.shape for name, array in tensors.items()}
        rows = next((shape[0] for shape in shapes.values()), 0)
        expected = {name: (rows, *shape[1:]) for name, shape in self.inputs.items()}
        if shapes != expected:
            raise EngineError(f"{self._name}: expected {expected}, got {shapes}")
        if not 0 < rows <= max(self.plans):
            raise EngineError(
                f"{self._name}: expected 1 to {max(self.plans)} rows, got {rows}; build wider plans"
            )
        return int(rows)


class _Staged:
    """An execution between page-locked host arrays; what is copied are the rows in use."""

    def __init__(self, plan: LoadedPlan, device: Device) -> None:
        self._device = device
        self._stream = device.stream()
        self._host = {name: device.host_array(spec.shape, spec.dtype) for name, spec in plan.tensors.items()}
        self._memory = {name: device.allocate(spec.size_bytes) for name, spec in plan.tensors.items()}
        self._is_input = {name: spec.is_input for name, spec in plan.tensors.items()}
        self._execution = plan.open()
        self._execution.bind({name: int(memory) for name, memory in self._memory.items()})
        for name, array in self._host.items():
            array.fill(0)  # rows that no request has filled yet must hold numbers
            self._device.upload(array, self._memory[name], self._stream)
        self._stream.synchronize()
        self._execution.warm_up()

    def run(self, tensors: Tensors, rows: int) -> dict[str, NDArray[np.float32]]:
        for name, array in tensors.items():
            np.copyto(self._host[name][:rows], array)
            self._device.upload(self._host[name][:rows], self._memory[name], self._stream)
        self._execution.enqueue(self._stream.handle)
        outputs = [name for name, is_input in self._is_input.items() if not is_input]
        for name in outputs:
            self._device.download(self._memory[name], self._host[name][:rows], self._stream)
        self._stream.synchronize()
        return {name: self._host[name][:rows].copy() for name in outputs}
