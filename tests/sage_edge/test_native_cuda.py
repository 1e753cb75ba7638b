"""The CUDA core where there is no device: it loads, says so, refuses nonsense, and shares memory."""

from __future__ import annotations

import gc
import importlib.util
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import sage_edge
from sage_edge import native
from sage_edge.errors import ConfigError, DeviceError, ShapeError

needs_cuda_build = pytest.mark.skipif(not native.BUILT_WITH_CUDA, reason="needs a build with a CUDA compiler")
needs_no_device = pytest.mark.skipif(native.device_count() > 0, reason="needs a machine without a GPU")
SHAPE = {"widths": [1, 4], "rows": 8, "elements": 10, "half": False, "terms": 2, "context_bytes": [16]}
SHAPE |= {"step_size": 0.5, "lo": -1.0, "hi": 1.0}


def test_a_build_without_cuda_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(native, "BUILT_WITH_CUDA", False)
    assert native.device_count() == 0
    assert native.cuda_devices() == []
    for name in ("RefineLoop", "TensorView", "mapped_ring"):
        with pytest.raises(DeviceError, match=f"^{name}: expected a build with CUDA.*SAGE_CUDA=ON"):
            getattr(native, name)
    with pytest.raises(AttributeError, match="no attribute 'Ringg'"):
        native.Ringg  # noqa: B018


@needs_no_device
def test_without_a_driver_there_is_no_device():
    assert native.device_count() == 0
    assert native.cuda_devices() == []


@needs_cuda_build
def test_where_there_is_no_device_a_reason_is_given_and_none_where_there_is():
    assert bool(native.cuda_refusal()) == (native.device_count() == 0)


@needs_cuda_build
def test_every_device_has_a_name():
    assert len(native.cuda_devices()) == native.device_count()


@needs_cuda_build
@needs_no_device
def test_what_needs_a_driver_names_the_call_that_failed():
    place = r"cudaHostAlloc.* at csrc/device/owners.cpp:\d+: expected success, got cuda"
    with pytest.raises(DeviceError, match=place):
        native.mapped_ring(64)
    with pytest.raises(DeviceError, match="cudaStreamCreate"):
        native.RefineLoop(native.Ring(64), **SHAPE)


@needs_cuda_build
def test_a_mapped_ring_has_a_power_of_two():
    with pytest.raises(ConfigError, match="expected a power of two, got 100"):
        native.mapped_ring(100)


@needs_cuda_build
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"widths": []}, "at least one width above 0"),
        ({"widths": [4, 4]}, "widths that rise"),
        ({"rows": 3}, "at least 4 rows, got 3"),
        ({"elements": 0}, "at least one element"),
        ({"terms": 0}, "energy terms or a residual weight"),
        ({"context_bytes": [8] * 8}, "at most 7 context arrays, got 8"),
        ({"lo": 2.0}, "lo <= hi"),
        ({"widths": [1, 32], "rows": 32}, "a ring of at least 4 records per slot, got 64"),
    ],
)
def test_a_loop_of_a_shape_without_meaning_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        native.RefineLoop(native.Ring(64), **(SHAPE | wrong))


def view(array, **options):
    given = {"device": "cpu", "owner": array} | options
    return native.TensorView(array.ctypes.data, array.shape, array.dtype, **given)


@needs_cuda_build
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int64"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (0, 3)])
def test_a_view_is_the_same_memory_in_another_library(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int), dtype=dtype).reshape(shape)
    seen = np.from_dlpack(view(array))
    assert (seen.dtype, seen.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(seen, array)
    if array.size:
        array.flat[0] = 77
        assert seen.flat[0] == 77


@needs_cuda_build
def test_the_owner_lives_as_long_as_the_last_array_made_of_its_view():
    array = np.arange(6.0)
    alive = weakref.ref(array)
    seen = np.from_dlpack(view(array))
    del array
    gc.collect()
    assert alive() is not None
    np.testing.assert_array_equal(seen, np.arange(6.0))
    del seen
    gc.collect()
    assert alive() is None


@needs_cuda_build
def test_a_capsule_that_nobody_takes_lets_go_of_the_owner():
    array = np.arange(6.0)
    alive = weakref.ref(array)
    capsule = view(array).__dlpack__()
    del array
    gc.collect()
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None


@needs_cuda_build
def test_a_view_of_device_memory_speaks_both_protocols():
    device = native.TensorView(0x7F00, [2, 3], np.float16, device="cuda:1", owner=None)
    assert device.__dlpack_device__() == (2, 1)
    assert device.__cuda_array_interface__ == {
        "shape": (2, 3),
        "typestr": "<f2",
        "data": (0x7F00, False),
        "version": 3,
        "stream": None,
    }
    assert (device.shape, device.dtype, device.pointer) == ((2, 3), np.float16, 0x7F00)


@needs_cuda_build
def test_a_view_of_host_memory_is_none_of_cuda():
    host = view(np.zeros(3))
    assert host.__dlpack_device__() == (1, 0)
    assert not hasattr(host, "__cuda_array_interface__")


@needs_cuda_build
@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:", "cuda:x", "cuda:-1"])
def test_a_device_that_does_not_exist_is_refused(device):
    with pytest.raises(ConfigError, match=f'expected "cpu" or "cuda:N", got "{device}"'):
        view(np.zeros(3), device=device)


@needs_cuda_build
def test_a_dtype_or_an_axis_that_cannot_be_passed_is_refused():
    with pytest.raises(ShapeError, match="expected floats or integers, got complex128"):
        view(np.zeros(3, np.complex128))
    with pytest.raises(ShapeError, match="expected lengths >= 0, got -1"):
        native.TensorView(0, [-1], np.float32, device="cpu", owner=None)


@needs_cuda_build
def test_the_committed_stub_is_what_the_built_module_says(tmp_path):
    if importlib.util.find_spec("pybind11_stubgen") is None:
        pytest.skip("needs pybind11-stubgen")
    command = [sys.executable, "-m", "pybind11_stubgen", "sage_edge._cuda", "--output-dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    committed = Path(sage_edge.__file__).with_name("_cuda.pyi")
    assert committed.read_text() == (tmp_path / "sage_edge" / "_cuda.pyi").read_text()
