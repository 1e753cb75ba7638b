"""Plugins, one modality each, and how they are found."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from sage_edge.config import Settings
from sage_edge.errors import ConfigError
from sage_edge.runtime.recipe import Recipe

GROUP = "sage_edge.plugins"
RECIPES = "sage_edge.recipes"


def load_plugin(name: str, settings: Settings) -> Any:
    """The plugin that an installed package registers under a name in the group ``sage_edge.plugins``.

    The entry point is a callable that takes the settings and returns a plugin with a slot program.

    Raises:
        ConfigError: No package registers that name.
        EngineError: The plugin's engine files cannot be used.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise ConfigError(f"plugins: expected some of {sorted(found)}, got {name!r}")
    return found[name].load()(settings)


def load_recipes(settings: Settings) -> list[Recipe]:
    """How the engines of the plugins that the settings name are made, without loading any.

    A package registers a callable in the group ``sage_edge.recipes``, under its plugin's name, that takes the
    settings and returns recipes. A plugin without networks has none.

    Raises:
        ConfigError: A setting that the recipes depend on is unusable.
        EngineError: A model's manifest is broken.
    """
    entries = [entry for entry in entry_points(group=RECIPES) if entry.name in settings.plugins]
    return [recipe for entry in entries for recipe in entry.load()(settings)]
