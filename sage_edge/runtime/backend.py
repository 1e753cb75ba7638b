"""Which backend runs the networks: chosen by the settings, never by what happens to be there."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Protocol

from sage_edge.config import Settings
from sage_edge.errors import ConfigError
from sage_edge.irp import Engine, Recipe
from sage_edge.runtime.building import PlanBuilder
from sage_edge.runtime.engine import OnnxEngine

#: Entry points: by the name that the setting ``backend`` has, a class that is a Backend.
GROUP = "sage_edge.backends"


class Backend(Protocol):
    """Makes engines of recipes.

    Attributes:
        default_precision: "fp16" where it runs on a GPU, else "fp32".
        builder: What builds plans ahead of time; None where recipes are opened as they are.
    """

    default_precision: str
    builder: PlanBuilder | None

    @classmethod
    def from_settings(cls, settings: Settings) -> Backend:
        """The backend as it is on this machine.

        Raises:
            EngineError: This machine lacks what it needs.
        """

    def open(self, recipe: Recipe) -> Engine:
        """The engine of a recipe.

        Raises:
            EngineError: It cannot be made from what is there.
        """


class CpuBackend:
    """ONNX Runtime on the CPU."""

    default_precision = "fp32"
    builder: PlanBuilder | None = None

    def __init__(self, threads: int) -> None:
        self._threads = threads

    @classmethod
    def from_settings(cls, settings: Settings) -> CpuBackend:
        """As many threads as the settings say."""
        return cls(settings.thread_count)

    def open(self, recipe: Recipe) -> OnnxEngine:
        """The ONNX file itself."""
        return OnnxEngine(recipe.path, threads=self._threads, sha256=recipe.sha256)


def find_backend(settings: Settings) -> Any:
    """The class of the backend that the settings name; nothing of it is opened.

    Raises:
        ConfigError: No installed package has a backend of that name.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if settings.backend not in found:
        raise ConfigError(f"backend: expected one of {', '.join(sorted(found))}, got {settings.backend!r}")
    return found[settings.backend].load()


def open_backend(settings: Settings) -> Backend:
    """The backend that the settings name.

    Raises:
        ConfigError: There is none of that name.
        EngineError: This machine lacks what it needs.
    """
    backend: Backend = find_backend(settings).from_settings(settings)
    return backend


def precision_of(settings: Settings) -> str:
    """The precision of the networks: the setting, or for ``auto`` what suits the backend.

    Raises:
        ConfigError: There is no backend of that name.
    """
    if settings.precision != "auto":
        return settings.precision
    return str(find_backend(settings).default_precision)
