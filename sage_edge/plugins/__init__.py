"""Plugins, one modality each: how they are found, made and given their networks."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sage_edge.config import Settings
from sage_edge.errors import ConfigError
from sage_edge.irp import IRPPlugin, Recipe
from sage_edge.irp.guard import calling
from sage_edge.runtime import open_backend, precision_of
from sage_edge.runtime.backend import Backend

#: Entry points: by name, a subclass of IRPPlugin.
GROUP = "sage_edge.plugins"
#: The one key of a plugin's config that is not its own: what is served under the plugin's name.
CLASS_KEY = "class"


def find_class(name: str) -> type[IRPPlugin]:
    """The class that an installed package registers under a name, or that ``module:Class`` names.

    Raises:
        ConfigError: There is none of that name, it cannot be imported, or it is no plugin.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name in found:
        load = found[name].load
    elif ":" in name:
        load = lambda: _imported(name)  # noqa: E731 - one of two ways to the class
    else:
        raise ConfigError(
            f"plugins: expected some of {', '.join(sorted(found))}, or module:Class, got {name!r}; a name of "
            f"your own needs its {CLASS_KEY}: --set {name}.{CLASS_KEY}=…"
        )
    try:
        cls = load()
    except (ImportError, AttributeError) as exc:
        raise ConfigError(f"plugins: {name}: cannot be imported: {exc}") from exc
    if not (isinstance(cls, type) and issubclass(cls, IRPPlugin)):
        raise ConfigError(f"plugins: {name}: expected a subclass of sage_edge.IRPPlugin, got {cls!r}")
    return cls


def _imported(path: str) -> Any:
    """A class by its path; modules of the working directory count, after all that is installed."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def make_plugins(settings: Settings) -> dict[str, IRPPlugin]:
    """The plugins of the settings, with their configs, without their networks.

    Which profile each is for is asked before anything of it is made.

    Raises:
        ConfigError: A name, a config or a profile does not fit; it names the plugin.
    """
    classes = {name: _class_for(name, settings) for name in settings.plugins}
    for name, cls in classes.items():
        check_profile(name, cls, settings.profile)
    return {name: make_plugin(name, cls, _config_of(name, settings)) for name, cls in classes.items()}


def check_profile(name: str, cls: type[IRPPlugin], profile: str) -> None:
    """Refuse a plugin that is not for a profile.

    Raises:
        ConfigError: It is not.
    """
    allowed = cls.allowed_profiles()
    if profile not in allowed:
        why = " since it refines pixels" if cls.state_kind == "pixels" and cls.profiles is None else ""
        raise ConfigError(
            f"plugins: {name} is for the profile {' or '.join(allowed) or 'none'}{why}, not for {profile}: "
            f"leave it out, or choose another --profile"
        )


def make_plugin(name: str, cls: type[IRPPlugin], config: Mapping[str, Any]) -> IRPPlugin:
    """One plugin under a name, without its networks.

    Raises:
        ConfigError: Its class is abstract, or its config unusable.
        PluginError: Its constructor failed otherwise.
    """
    if missing := sorted(cls.__abstractmethods__):
        raise ConfigError(f"plugins: {name}: {cls.__name__} lacks the methods {', '.join(missing)}")
    try:
        with calling(name, "__init__"):
            plugin = cls(config)
    except ConfigError as exc:
        raise ConfigError(f"plugins.{name}: {exc}") from exc
    plugin.name = name
    return plugin


def load_recipes(plugins: Mapping[str, IRPPlugin], settings: Settings) -> dict[str, dict[str, Recipe]]:
    """How the networks of plugins are made, by plugin and by the plugin's own names; loads none.

    Raises:
        ConfigError: A config names no usable model.
        EngineError: A model's files are broken.
    """
    precision = precision_of(settings)
    return {
        name: {
            own: recipe.for_slots(settings.slots) for own, recipe in _recipes(name, plugin, precision).items()
        }
        for name, plugin in plugins.items()
    }


def load_networks(plugins: Mapping[str, IRPPlugin], settings: Settings) -> None:
    """Give each plugin its networks, on the backend of the settings.

    Raises:
        ConfigError: As ``load_recipes``.
        EngineError: A network cannot be loaded, or is not what its plugin needs.
    """
    recipes = load_recipes(plugins, settings)
    backend: Backend | None = None
    for name, plugin in plugins.items():
        if recipes[name] and backend is None:
            backend = open_backend(settings)
        engines = {own: backend.open(recipe) for own, recipe in recipes[name].items()} if backend else {}
        with calling(name, "load"):
            plugin.load(engines)


def wanted_recipes(settings: Settings) -> list[Recipe]:
    """The recipes of all networks that the settings ask for.

    Raises:
        SageError: As ``make_plugins`` and ``load_recipes``.
    """
    found = load_recipes(make_plugins(settings), settings)
    return [recipe for recipes in found.values() for recipe in recipes.values()]


def open_plugin(name: str, settings: Settings) -> IRPPlugin:
    """One plugin with its networks, without an orchestrator.

    Raises:
        SageError: It cannot be served with these settings.
    """
    cls = _class_for(name, settings)
    check_profile(name, cls, settings.profile)
    plugin = make_plugin(name, cls, _config_of(name, settings))
    load_networks({name: plugin}, settings)
    return plugin


def _class_for(name: str, settings: Settings) -> type[IRPPlugin]:
    chosen = settings.plugin_config.get(name, {}).get(CLASS_KEY, name)
    if not isinstance(chosen, str):
        raise ConfigError(f"plugins.{name}: {CLASS_KEY}: expected a name, got {chosen!r}")
    return find_class(chosen)


def _config_of(name: str, settings: Settings) -> dict[str, Any]:
    given = settings.plugin_config.get(name, {})
    return {key: value for key, value in given.items() if key != CLASS_KEY}


def _recipes(name: str, plugin: IRPPlugin, precision: str) -> Mapping[str, Recipe]:
    try:
        with calling(name, "recipes"):
            return plugin.recipes(precision)
    except ConfigError as exc:
        raise ConfigError(f"plugins.{name}: {exc}") from exc


__all__ = [
    "CLASS_KEY",
    "GROUP",
    "check_profile",
    "find_class",
    "load_networks",
    "load_recipes",
    "make_plugin",
    "make_plugins",
    "open_plugin",
    "wanted_recipes",
]
