"""The door itself: what it exports, and what it says where nothing was built."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import sage_edge
from sage_edge import native


def test_everything_exported_is_there_and_documented():
    for name in native.__all__:
        assert getattr(native, name).__doc__ or name.isupper()


def test_a_tree_that_was_not_built_says_how_to_build(monkeypatch):
    monkeypatch.setitem(sys.modules, "sage_edge._core", None)
    with pytest.raises(ModuleNotFoundError, match="run `make build`"):
        importlib.reload(native)


def test_the_committed_stub_is_what_the_built_core_says(tmp_path):
    pytest.importorskip("pybind11_stubgen", reason="needs pybind11-stubgen")
    command = [sys.executable, "-m", "pybind11_stubgen", "sage_edge._core", "--output-dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    committed = Path(sage_edge.__file__).with_name("_core.pyi")
    assert committed.read_text() == (tmp_path / "sage_edge" / "_core.pyi").read_text()
