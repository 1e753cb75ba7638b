"""What a plan needs of a GPU, and pycuda as the one who provides it.

pycuda is imported when a device is opened, never before: without a driver the import itself fails.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, SupportsInt

import numpy as np
from numpy.typing import NDArray

from sage_edge.errors import EngineError

#: cudaStreamCaptureModeThreadLocal: other threads may allocate meanwhile.
_CAPTURE_THREAD_LOCAL = 1


class Stream(Protocol):
    """A CUDA stream. ``handle`` is the raw handle; ``synchronize`` waits for everything enqueued so far."""

    @property
    def handle(self) -> int:
        """The raw handle."""

    def synchronize(self) -> Any:
        """Wait for everything that was enqueued so far."""


class Device(Protocol):
    """One GPU. Memory that it hands out is freed with the last reference to it."""

    name: str
    #: Compute capability, such as "8.7".
    sm: str

    def current(self) -> AbstractContextManager[None]:
        """Around all work on the device: its primary context is current on this thread."""

    def stream(self) -> Stream:
        """A new stream."""

    def allocate(self, size_bytes: int) -> SupportsInt:
        """Device memory, aligned to 256 bytes; ``int()`` gives its address."""

    def host_array(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Page-locked host memory."""

    def upload(self, source: NDArray[Any], target: SupportsInt, stream: Stream) -> None:
        """Enqueue a copy to the device; ``source`` is contiguous and page-locked."""

    def download(self, source: SupportsInt, target: NDArray[Any], stream: Stream) -> None:
        """Enqueue a copy from the device; ``target`` is contiguous and page-locked."""

    def captured_nodes(self, enqueue: Callable[[int], None], stream: Stream) -> int:
        """How many graph nodes the work becomes that ``enqueue`` puts on a stream handle."""


def open_device() -> Device:
    """The first GPU, by its primary context, which cudart, torch and TensorRT share.

    Raises:
        EngineError: pycuda, the driver or the GPU is missing; says which.
    """
    try:
        import pycuda.driver as cuda
    except ModuleNotFoundError as exc:
        raise EngineError(
            "pycuda is not installed: pip install 'sage-edge[tensorrt]', with the CUDA toolkit at hand"
        ) from exc
    except ImportError as exc:
        raise EngineError(f"pycuda does not load: {exc}; it needs the NVIDIA driver") from exc
    try:
        return PycudaDevice(cuda, ctypes.CDLL("libcuda.so.1"))
    except (cuda.Error, OSError) as exc:
        raise EngineError(f"no usable NVIDIA GPU: {exc}") from exc


class PycudaDevice:
    """The first GPU, through ``pycuda.driver``; graph calls, which pycuda lacks, through ctypes."""

    def __init__(self, cuda: Any, driver: Any) -> None:
        cuda.init()
        device = cuda.Device(0)
        self._cuda = cuda
        self._driver = driver
        self._context = device.retain_primary_context()
        self.name: str = device.name()
        self.sm = ".".join(str(part) for part in device.compute_capability())

    @contextmanager
    def current(self) -> Iterator[None]:
        """Push the primary context onto this thread, and pop it."""
        self._context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()

    def stream(self) -> Stream:
        """A new stream."""
        stream: Stream = self._cuda.Stream()
        return stream

    def allocate(self, size_bytes: int) -> SupportsInt:
        """Device memory."""
        try:
            memory: SupportsInt = self._cuda.mem_alloc(size_bytes)
        except self._cuda.Error as exc:
            raise EngineError(f"{self.name}: no {size_bytes} bytes of device memory: {exc}") from exc
        return memory

    def host_array(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Page-locked host memory."""
        array: NDArray[Any] = self._cuda.pagelocked_empty(tuple(shape), dtype)
        return array

    def upload(self, source: NDArray[Any], target: SupportsInt, stream: Stream) -> None:
        """Enqueue a copy to the device."""
        self._cuda.memcpy_htod_async(int(target), source, stream)

    def download(self, source: SupportsInt, target: NDArray[Any], stream: Stream) -> None:
        """Enqueue a copy from the device."""
        self._cuda.memcpy_dtoh_async(target, int(source), stream)

    def captured_nodes(self, enqueue: Callable[[int], None], stream: Stream) -> int:
        """Capture the work into a graph, count its nodes, and throw it away."""
        handle, graph, count = ctypes.c_void_p(stream.handle), ctypes.c_void_p(), ctypes.c_size_t()
        self._try("cuStreamBeginCapture_v2", handle, _CAPTURE_THREAD_LOCAL)
        try:
            enqueue(stream.handle)
        finally:
            self._try("cuStreamEndCapture", handle, ctypes.byref(graph))
        self._try("cuGraphGetNodes", graph, None, ctypes.byref(count))
        self._try("cuGraphDestroy", graph)
        return count.value

    def _try(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            raise EngineError(f"{self.name}: {name} failed with CUDA error {code}")
