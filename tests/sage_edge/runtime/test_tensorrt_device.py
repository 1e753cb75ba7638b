"""pycuda's side, over a module and a driver that write down what they are asked for."""

from __future__ import annotations

import ctypes
import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest

from sage_edge.errors import EngineError
from sage_edge.runtime.tensorrt.device import PycudaDevice, open_device
from tests.fake_tensorrt import api_names


class CudaError(Exception):
    pass


class FakePycuda:
    """``pycuda.driver``, as far as it is used; answers no name that the real one lacks."""

    Error = CudaError

    def __init__(self):
        names = api_names("2026.1", "pycuda_api")
        self.log, self.pushed = [], []
        context = SimpleNamespace(push=lambda: self.pushed.append(context))
        device = SimpleNamespace(
            name=lambda: "Orin", compute_capability=lambda: (8, 7), retain_primary_context=lambda: context
        )
        self.init = lambda: self.log.append("init")
        self.Device = lambda number: self.log.append(("device", number)) or device
        self.Context = SimpleNamespace(pop=self.pushed.pop)
        self.Stream = lambda: SimpleNamespace(handle=77, synchronize=lambda: self.log.append("synchronize"))
        self.memcpy_htod_async = lambda dest, src, stream: self.log.append(
            ("up", dest, src.nbytes, stream.handle)
        )
        self.memcpy_dtoh_async = lambda dest, src, stream: self.log.append(
            ("down", src, dest.nbytes, stream.handle)
        )
        self.pagelocked_empty = np.empty
        assert {name for name in vars(self) if name not in ("log", "pushed")} <= set(names["driver"])

    def mem_alloc(self, size_bytes):
        if size_bytes > 1 << 30:
            raise CudaError("out of memory")
        return 4096


class FakeDriver:
    """libcuda: a capture holds what was enqueued between its begin and its end."""

    def __init__(self, failing=None):
        self.calls = []
        self.nodes = 0
        self._failing = failing

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            if name == self._failing:
                return 901
            if name == "cuStreamBeginCapture_v2":
                assert (arguments[0].value, arguments[1]) == (77, 1)
            if name == "cuStreamEndCapture":
                ctypes.cast(arguments[1], ctypes.POINTER(ctypes.c_void_p))[0] = 0xABC
            if name == "cuGraphGetNodes":
                assert arguments[0].value == 0xABC
                ctypes.cast(arguments[2], ctypes.POINTER(ctypes.c_size_t))[0] = self.nodes
            return 0

        return call


def test_the_primary_context_is_current_inside_and_only_there():
    cuda = FakePycuda()
    device = PycudaDevice(cuda, FakeDriver())
    assert cuda.log == ["init", ("device", 0)]
    assert (device.name, device.sm) == ("Orin", "8.7")
    assert cuda.pushed == []
    with device.current():
        assert len(cuda.pushed) == 1
        with device.current():
            assert len(cuda.pushed) == 2
    assert cuda.pushed == []
    with pytest.raises(ZeroDivisionError), device.current():
        raise ZeroDivisionError
    assert cuda.pushed == []


def test_copies_go_where_and_when_they_should():
    cuda = FakePycuda()
    device = PycudaDevice(cuda, FakeDriver())
    stream = device.stream()
    host = device.host_array([2, 3], np.dtype(np.float32))
    assert (host.shape, host.dtype) == ((2, 3), np.float32)
    device.upload(host, device.allocate(24), stream)
    device.download(4096, host, stream)
    assert cuda.log[2:] == [("up", 4096, 24, 77), ("down", 4096, 24, 77)]


def test_memory_that_is_not_there_is_an_error_with_its_size():
    device = PycudaDevice(FakePycuda(), FakeDriver())
    with pytest.raises(EngineError, match=r"Orin: no 4294967296 bytes of device memory: out of memory"):
        device.allocate(1 << 32)


def test_a_capture_is_counted_and_thrown_away():
    driver = FakeDriver()
    device = PycudaDevice(FakePycuda(), driver)

    def enqueue(handle):
        assert driver.calls == ["cuStreamBeginCapture_v2"]
        driver.nodes = handle

    assert device.captured_nodes(enqueue, device.stream()) == 77
    assert driver.calls[1:] == ["cuStreamEndCapture", "cuGraphGetNodes", "cuGraphDestroy"]


def test_a_capture_ends_even_if_the_work_fails():
    driver = FakeDriver()
    device = PycudaDevice(FakePycuda(), driver)

    def fail(handle):
        raise EngineError("refused")

    with pytest.raises(EngineError, match="refused"):
        device.captured_nodes(fail, device.stream())
    assert driver.calls == ["cuStreamBeginCapture_v2", "cuStreamEndCapture"]


def test_a_driver_call_that_fails_is_named():
    device = PycudaDevice(FakePycuda(), FakeDriver(failing="cuStreamEndCapture"))
    with pytest.raises(EngineError, match="Orin: cuStreamEndCapture failed with CUDA error 901"):
        device.captured_nodes(lambda handle: None, device.stream())


@pytest.mark.skipif(importlib.util.find_spec("pycuda") is not None, reason="pycuda is installed")
def test_without_pycuda_it_says_what_to_install():
    with pytest.raises(EngineError, match=r"pycuda is not installed: pip install 'sage-edge\[tensorrt\]'"):
        open_device()
