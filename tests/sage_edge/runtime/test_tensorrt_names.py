"""Every name that our code asks of TensorRT and pycuda exists in every version that we claim to support."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.fake_tensorrt import SUPPORTED, api_names

ROOM = Path(__file__).parents[3] / "sage_edge" / "runtime" / "tensorrt"

#: Which class a variable holds, by file. "trt" and "cuda" are the modules themselves.
TENSORRT = {
    "api.py": {},
    "build.py": {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "finding": "ParserError",
        "config": "IBuilderConfig",
        "cache": "ITimingCache",
        "tensor": "ITensor",
    },
    "engine.py": {
        "_runtime": "Runtime",
        "engine": "ICudaEngine",
        "_engine": "ICudaEngine",
        "context": "IExecutionContext",
        "_context": "IExecutionContext",
    },
}
#: What we call, by class. A call that is added has to be added here, and so is checked.
CALLED = {
    "Builder": {"create_network", "create_builder_config", "build_serialized_network"},
    "INetworkDefinition": {"num_inputs", "get_input", "num_outputs", "get_output"},
    "OnnxParser": {"parse", "num_errors", "get_error"},
    "ParserError": {"node", "desc"},
    "IBuilderConfig": {
        "max_aux_streams",
        "set_memory_pool_limit",
        "clear_flag",
        "progress_monitor",
        "create_timing_cache",
        "set_timing_cache",
    },
    "ITimingCache": {"serialize"},
    "ITensor": {"name", "shape"},
    "Runtime": {"deserialize_cuda_engine"},
    "ICudaEngine": {
        "num_io_tensors",
        "get_tensor_name",
        "get_tensor_shape",
        "get_tensor_dtype",
        "get_tensor_mode",
        "num_aux_streams",
        "device_memory_size_v2",
        "create_execution_context",
    },
    "IExecutionContext": {"set_tensor_address", "set_device_memory", "execute_async_v3"},
}
#: Methods of ours that TensorRT calls.
OVERRIDDEN = {"IProgressMonitor": {"phase_start", "step_complete", "phase_finish"}, "ILogger": {"log"}}


def holder(node):
    """The variable or member that an expression ends in: ``self._engine`` -> "_engine"."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None


def attributes(file):
    return [
        node for node in ast.walk(ast.parse((ROOM / file).read_text())) if isinstance(node, ast.Attribute)
    ]


def used_of_module(file, module):
    """(X, None) for each ``module.X``, and (X, Y) for each ``module.X.Y``."""
    found = set()
    for node in attributes(file):
        if holder(node.value) == module:
            found.add((node.attr, None))
        elif isinstance(node.value, ast.Attribute) and holder(node.value.value) == module:
            found.add((node.value.attr, node.attr))
    return found


def used_of_objects(table):
    """Attributes by class."""
    found = {}
    for file, classes in table.items():
        for node in attributes(file):
            if holder(node.value) in classes:
                found.setdefault(classes[holder(node.value)], set()).add(node.attr)
    return found


def lacking(names):
    """What our code uses and a version lacks."""
    missing = {f"{cls}.{name}" for cls, used in CALLED.items() for name in used - set(names.get(cls, ()))}
    missing |= {
        f"{cls}.{name}" for cls, used in OVERRIDDEN.items() for name in used - set(names.get(cls, ()))
    }
    for file in TENSORRT:
        for outer, inner in used_of_module(file, "trt"):
            if outer == "__version__":
                continue
            if outer not in names or (inner and inner != "__init__" and inner not in names[outer]):
                missing.add(f"{outer}.{inner}")
    return missing


def test_the_list_of_calls_is_what_the_source_calls():
    assert used_of_objects(TENSORRT) == CALLED


#: Variables that hold plain data from TensorRT, and no object of its.
DATA = {"plan", "streams", "size_bytes", "trt", "major", "minor", "label"}


def test_no_object_of_tensorrt_has_a_name_that_is_not_listed():
    for file, classes in TENSORRT.items():
        for node in ast.walk(ast.parse((ROOM / file).read_text())):
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
                continue
            made_by = holder(getattr(node.value.func, "value", None))
            if made_by == "trt" or made_by in classes:
                names = {holder(target) for target in node.targets}
                assert names <= set(classes) | DATA, (file, names)


def test_the_source_is_scanned_for_names_of_the_module():
    found = set().union(*(used_of_module(file, "trt") for file in TENSORRT))
    assert ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") in found
    assert ("ExecutionContextAllocationStrategy", "USER_MANAGED") in found
    assert ("BuilderFlag", "FP16") not in found  # the precision is in the ONNX types


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_name_exists_in_a_supported_version(version):
    assert lacking(api_names(version)) == set()


def test_8_6_is_refused_for_good_reasons():
    missing = lacking(api_names("8.6"))
    assert "NetworkDefinitionCreationFlag.STRONGLY_TYPED" in missing
    assert "IExecutionContext.set_device_memory" in missing
    assert "IBuilderConfig.progress_monitor" in missing


def test_every_file_that_speaks_to_tensorrt_is_scanned():
    speakers = {path.name for path in ROOM.glob("*.py") if used_of_module(path.name, "trt")}
    assert speakers == {name for name in TENSORRT if used_of_module(name, "trt")}
    assert {"build.py", "engine.py"} <= speakers


PYCUDA = {"device": "Device", "_context": "Context"}


def test_every_name_of_pycuda_exists():
    names = api_names("2026.1", "pycuda_api")
    found = used_of_module("device.py", "cuda") | used_of_module("device.py", "_cuda")
    assert {outer for outer, _ in found} >= {"init", "Device", "Stream", "mem_alloc", "memcpy_htod_async"}
    for outer, inner in found:
        assert outer in names["driver"], outer
        assert inner is None or inner in names[outer], (outer, inner)
    called = used_of_objects({"device.py": PYCUDA})
    assert called["Device"] == {"retain_primary_context", "name", "compute_capability"}
    for cls, used in called.items():
        assert used <= set(names[cls]), cls
    assert {"handle", "synchronize"} <= set(names["Stream"])
    assert "__int__" in names["DeviceAllocation"]
