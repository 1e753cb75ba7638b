"""Whether what the settings ask for can fit into memory: better said at the start than under load."""

from __future__ import annotations

from collections.abc import Mapping

from sage_edge.config import Settings
from sage_edge.errors import ConfigError
from sage_edge.irp import IRPPlugin

_MIB = 1 << 20
#: Bytes for one unit of a setting, at least: what is refused could never work.
_WAITING_BYTES = 256 << 10
_MAILBOX_RECORD_BYTES = 64
_KEPT_RECORD_BYTES = 4 << 10
#: For bodies, inputs, answers and replies, at least, and unless more is set.
_LEAST_BUDGET_BYTES, _MOST_BUDGET_BYTES = 32 << 20, 2 << 30


def needed_bytes(settings: Settings, plugins: Mapping[str, IRPPlugin]) -> dict[str, int]:
    """Memory at full load by the setting that asks for it, at least."""
    return {
        "slots": settings.slots * sum(plugin.slot_bytes for plugin in plugins.values()),
        "queue_size": len(plugins) * settings.queue_size * _WAITING_BYTES,
        "mailbox_records": len(plugins) * settings.mailbox_records * _MAILBOX_RECORD_BYTES,
        "telemetry_memory": settings.telemetry_memory * _KEPT_RECORD_BYTES,
        "memory_bytes": settings.memory_bytes or _LEAST_BUDGET_BYTES,
    }


def budget_bytes(settings: Settings, plugins: Mapping[str, IRPPlugin], available_bytes: int | None) -> int:
    """What requests may hold together: as it is set, or half of what the rest leaves free, up to 2 GiB.

    The other half is for what no account counts: the engines' own buffers, and what allocators keep.
    """
    if settings.memory_bytes or available_bytes is None:
        return settings.memory_bytes or _MOST_BUDGET_BYTES
    rest = sum(needed_bytes(settings, plugins).values()) - _LEAST_BUDGET_BYTES
    return min(max(_LEAST_BUDGET_BYTES, (available_bytes - rest) // 2), _MOST_BUDGET_BYTES)


def check_fits(settings: Settings, plugins: Mapping[str, IRPPlugin], available_bytes: int | None) -> None:
    """Refuse settings that need more than there is; says nothing where that is not known.

    Raises:
        ConfigError: They do not fit; it names the setting that asks for most.
    """
    needed = needed_bytes(settings, plugins)
    total_mib, free_mib = sum(needed.values()) // _MIB, (available_bytes or 0) // _MIB
    if available_bytes is None or total_mib <= free_mib:
        return
    key = max(needed, key=lambda name: needed[name])
    raise ConfigError(
        f"{key}: {getattr(settings, key)} needs {needed[key] // _MIB} MiB at least, "
        f"all settings {total_mib} MiB, of {free_mib} MiB that are free: choose a smaller {key}"
    )
