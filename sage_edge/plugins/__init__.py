"""Plugins, one modality each, and how they are found."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from sage_edge.config import Settings
from sage_edge.errors import ConfigError

GROUP = "sage_edge.plugins"


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
