"""What is installed, what is used, and what to do."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import version

import pytest

from sage_edge import Settings, native
from sage_edge.commands.doctor import examine
from sage_edge.config import shared_file
from sage_edge.runtime import CudaLoops
from tests.command_line import QUICK, run
from tests.quadratic import DeviceQuadratic


def examined(**settings):
    lines, ok = examine(Settings(**{"threads": 1, "telemetry_dir": ""} | settings))
    return {line[:12].strip(): line[12:] for line in lines}, ok


def test_it_names_the_system_the_packages_and_the_backend():
    found, ok = examined()
    assert ok
    assert platform.machine() in found["system"]
    assert "1 threads" in found["system"]
    for package in ("numpy", "onnxruntime", "fastapi"):
        assert f"{package} {version(package)}" in found["packages"]
    assert found["plugin"] == "vision: onnxruntime-cpu"
    assert "64-byte records" in found["core"]


def test_it_says_whether_the_core_was_built_for_gpus(monkeypatch):
    monkeypatch.setattr(native, "BUILT_WITH_CUDA", False)
    assert "SAGE_CUDA=ON make build" in examined()[0]["cuda"]
    monkeypatch.setattr(native, "BUILT_WITH_CUDA", True)
    monkeypatch.setattr(native, "cuda_devices", lambda: [])
    monkeypatch.setattr(native, "cuda_refusal", lambda: "there is no NVIDIA driver")
    assert examined()[0]["cuda"] == "built in; no device that it can use: there is no NVIDIA driver"
    monkeypatch.setattr(native, "cuda_devices", lambda: ["Orin (sm_87)"])
    assert examined()[0]["cuda"] == "built in; Orin (sm_87)"


@pytest.mark.parametrize("why_not", ["", "no CUDA here"])
def test_it_says_where_the_loop_of_a_plugin_runs_whose_engines_are_on_the_gpu(monkeypatch, why_not):
    monkeypatch.setattr("sage_edge.commands.doctor.open_plugin", lambda name, settings: DeviceQuadratic())
    monkeypatch.setattr(CudaLoops, "why_not", lambda self: why_not)
    where = f"its loop on the host: {why_not}" if why_not else "its loop on the GPU"
    assert examined()[0]["plugin"] == f"vision: numpy, {where}"


def test_it_says_why_no_gpu_is_used():
    found, _ = examined()
    assert found["gpu"].startswith("not used: ")
    assert "CPU" in found["gpu"]


def test_a_backend_that_cannot_serve_is_not_said_to_run_on_the_cpu():
    found, ok = examined(backend="tensorrt")
    assert not ok
    assert found["gpu"].startswith("asked for, but ")
    assert "CPU" not in found["gpu"]


def test_it_names_a_plugin_that_cannot_be_loaded_and_why(tmp_path):
    model = shutil.copytree(shared_file("engines/vision/models/nuclei"), tmp_path / "model")
    (model / "step.fp32.onnx").write_bytes(b"no graph")
    found, ok = examined(plugin_config={"vision": {"model": str(model)}})
    assert not ok
    assert found["plugin"].startswith("vision: NOT usable: ")
    assert "step.fp32.onnx: expected sha256" in found["plugin"]


def test_it_names_a_plugin_that_nobody_provides():
    found, ok = examined(plugins=("audio",))
    assert not ok
    assert found["plugin"].startswith(
        "audio: NOT usable: plugins: expected some of control, language, vision, or module:Class"
    )


@pytest.mark.parametrize("is_there", [True, False])
def test_a_telemetry_folder_that_is_or_can_be_made_is_fine(tmp_path, is_there):
    folder = tmp_path if is_there else tmp_path / "a" / "b"
    found, ok = examined(telemetry_dir=str(folder))
    assert ok
    assert found["telemetry"] == f"journal: {folder}"


def test_a_file_in_the_way_of_the_telemetry_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    found, ok = examined(telemetry_dir=str(tmp_path / "file" / "telemetry"))
    assert ok  # serving works without it
    assert f"{tmp_path / 'file'} is no folder that can be written to" in found["telemetry"]
    assert "--telemetry-dir" in found["telemetry"]


def test_telemetry_in_memory_is_no_fault():
    found, ok = examined()
    assert ok
    assert found["telemetry"] == "journal: in memory only, as set"


# The command


def test_doctor_says_that_all_is_well(tmp_path, capsys):
    code, out, errors = run(capsys, "doctor", "--telemetry-dir", tmp_path, *QUICK)
    assert (code, errors) == (0, "")
    assert "plugin      vision: onnxruntime-cpu" in out


def test_doctor_ends_with_1_when_the_service_could_not_run(capsys):
    code, out, errors = run(capsys, "doctor", "--set", "vision.model=nowhere", *QUICK)
    assert (code, errors) == (1, "")
    assert "NOT usable" in out
