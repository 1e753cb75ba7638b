"""Recipes: everything that a training may vary, read from one TOML file into frozen dataclasses."""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path) -> dict[str, Any]:
    """Read a recipe; what it leaves out is taken from the file that its ``base`` names, if any."""
    raw: dict[str, Any] = tomllib.loads(path.read_text())
    base = raw.pop("base", None)
    return _merged(read_toml(path.parent / base), raw) if base else raw


def build(kind: Any, raw: dict[str, Any]) -> Any:
    """Make a dataclass of a table, and of its tables the dataclasses that its fields ask for.

    Raises:
        TypeError: A key is missing or unknown; the message names it.
    """
    hints = get_type_hints(kind)
    parts = {
        key: build(hints[key], value) if is_dataclass(hints.get(key)) else _frozen(value)
        for key, value in raw.items()
    }
    unknown = set(parts) - {entry.name for entry in fields(kind)}
    if unknown:
        raise TypeError(f"{kind.__name__}: unknown keys {sorted(unknown)}")
    return kind(**parts)


def _merged(base: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    tables = {key: base[key] | value for key, value in raw.items() if isinstance(value, dict) and key in base}
    return base | raw | tables


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
