"""Which backend runs the networks: chosen by the settings, never by what happens to be there."""

from __future__ import annotations

from typing import Protocol

from sage_edge.config import Settings
from sage_edge.runtime.engine import Engine, OnnxEngine
from sage_edge.runtime.recipe import Recipe


class Backend(Protocol):
    """Makes engines of recipes."""

    def open(self, recipe: Recipe) -> Engine:
        """The engine of a recipe.

        Raises:
            EngineError: It cannot be made from what is there.
        """


class CpuBackend:
    """ONNX Runtime on the CPU."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def open(self, recipe: Recipe) -> OnnxEngine:
        """The ONNX file itself."""
        return OnnxEngine(recipe.path, threads=self._threads, sha256=recipe.sha256)


def open_backend(settings: Settings) -> Backend:
    """The backend that the settings name.

    Raises:
        EngineError: This machine lacks what it needs.
    """
    if settings.backend == "cpu":
        return CpuBackend(settings.thread_count)
    from sage_edge.runtime.tensorrt import TensorRTBackend

    return TensorRTBackend.from_settings(settings)
