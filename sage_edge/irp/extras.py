"""What a plugin adds to its telemetry: its own fields, as JSON can carry them."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np

from sage_edge.errors import PluginError
from sage_edge.irp.plugin import TELEMETRY_FIELDS

#: Most names or numbers in one object or list, and most levels of them.
MOST_ITEMS, MOST_LEVELS = 64, 3
#: Longest text.
MOST_CHARACTERS = 256


def extras_of(record: Any, plugin: str) -> dict[str, Any]:
    """The fields of a record of ``emit_telemetry`` that are the plugin's own.

    Args:
        record: What ``emit_telemetry`` returned.
        plugin: The plugin's name.

    Returns:
        Those beside TELEMETRY_FIELDS: null, booleans, finite numbers, texts of up to MOST_CHARACTERS, and
        lists and objects of up to MOST_ITEMS of them. A number that is not finite is null, as everywhere in a
        record.

    Raises:
        PluginError: The record is no mapping, or a field is something else; it names the field.
    """
    if not isinstance(record, Mapping):
        raise PluginError(f"{plugin}.emit_telemetry: expected a mapping, got {type(record).__name__}")
    own = {name: value for name, value in record.items() if name not in TELEMETRY_FIELDS}
    plain: dict[str, Any] = _plain(own, f"{plugin}.emit_telemetry", MOST_LEVELS)
    return plain


def _plain(value: Any, where: str, levels: int) -> Any:
    if isinstance(value, np.generic | np.ndarray) and value.ndim == 0:
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, str) and len(value) <= MOST_CHARACTERS and value.isprintable():
        return value
    if isinstance(value, Mapping | list | tuple) and levels > 0 and len(value) <= MOST_ITEMS:
        return _each(value, where, levels - 1)
    raise PluginError(
        f"{where}: expected null, a boolean, a number, a text of up to {MOST_CHARACTERS} printable "
        f"characters, or up to {MOST_ITEMS} of them on {MOST_LEVELS} levels, got {type(value).__name__}"
    )


def _each(value: Any, where: str, levels: int) -> Any:
    if not isinstance(value, Mapping):
        return [_plain(item, f"{where}[{number}]", levels) for number, item in enumerate(value)]
    if not all(isinstance(name, str) and name.isprintable() for name in value):
        raise PluginError(f"{where}: expected texts as names, got {list(value)[:5]}")
    return {name: _plain(item, f"{where}.{name}", levels) for name, item in value.items()}
