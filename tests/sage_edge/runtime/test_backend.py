"""Which backend runs the networks is a setting, and nothing falls back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sage_edge import Settings
from sage_edge.errors import ConfigError, EngineError
from sage_edge.plugins import open_plugin, wanted_recipes
from sage_edge.runtime.backend import open_backend
from sage_edge.runtime.engine import OnnxEngine


def test_the_cpu_is_the_default():
    [recipe] = [item for item in wanted_recipes(Settings()) if ".decoder." in item.name]
    engine = open_backend(Settings(threads=1)).open(recipe)
    assert isinstance(engine, OnnxEngine)
    assert engine.sha256 == recipe.sha256


def test_an_unknown_backend_is_refused():
    with pytest.raises(ConfigError, match="backend: expected one of cpu, tensorrt, got 'cuda'"):
        open_backend(Settings(backend="cuda"))


def test_tensorrt_where_it_is_not_stops_the_start_and_nothing_falls_back(monkeypatch):
    """The import of every TensorRT module is made to fail, wherever this runs."""
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match="TensorRT is not installed"):
        open_plugin("vision", Settings(backend="tensorrt"))


def test_nothing_of_a_gpu_and_no_torch_is_imported_before_it_is_asked_for():
    code = (
        "import sys, sage_edge.cli, sage_edge.service, sage_edge.runtime.torch_engine\n"
        "heavy = ('tensorrt', 'tensorrt_rtx', 'tensorrt_rtx_bindings', 'pycuda', 'torch')\n"
        "sys.exit(', '.join(name for name in heavy if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_recipes_follow_the_settings():
    recipes = wanted_recipes(Settings(precision="fp16", slots=5))
    assert [item.name for item in recipes] == [
        f"nuclei.{graph}.fp16" for graph in ("encoder", "step", "energy", "decoder")
    ]
    assert {item.widths for item in recipes} == {(1, 3, 5)}
    assert all(item.read() for item in recipes)
