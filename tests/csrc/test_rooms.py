"""The arrows of the C++ rooms: bindings over device over kernels over core; pybind11 in bindings only."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"(?P<own>[^"]+)"|<(?P<outside>[^>]+)>)', re.MULTILINE)
MAY_INCLUDE = {
    "core": {"core"},
    "kernels": {"core", "kernels"},
    "device": {"core", "kernels", "device"},
    "bindings": {"core", "kernels", "device", "bindings"},
}
CUDA_HEADERS = {"cuda_runtime.h", "cuda_runtime_api.h"}

SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in {".h", ".cpp", ".cuh", ".cu"})


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(CSRC)))
def test_a_source_includes_only_its_own_room_and_those_below(source):
    room = source.relative_to(CSRC).parts[0]
    for match in INCLUDE.finditer(source.read_text()):
        if match["own"]:
            assert match["own"].split("/")[0] in MAY_INCLUDE[room], match[0]
        elif match["outside"] in CUDA_HEADERS:
            # Plain C++ stays free of CUDA; of the bindings only those of the CUDA module know it.
            assert path_may_see_cuda(source), match[0]
        elif room != "bindings":
            # Standard headers have no folder and no suffix: anything else is somebody's library.
            assert re.fullmatch(r"[a-z_]+", match["outside"]), match[0]


def path_may_see_cuda(source):
    """Whether a source is CUDA's own, in the device room, or part of the CUDA module."""
    room = source.relative_to(CSRC).parts[0]
    return source.suffix in {".cu", ".cuh"} or room == "device" or source.name == "bind_devices.cpp"
