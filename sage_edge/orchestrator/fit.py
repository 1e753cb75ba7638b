"""Whether what the settings ask for can fit into memory: better said at the start than under load."""

from __future__ import annotations

from sage_edge.config import Settings
from sage_edge.errors import ConfigError

_MIB = 1 << 20
#: Bytes for one unit of a setting, at least: what is refused could never work. The model that ships takes
#: more at full load, as benchmarks/memory.py measures.
_SLOT_BYTES = {"vision": 16 * _MIB}
_SMALL_SLOT_BYTES = 64 << 10
_WAITING_BYTES = 256 << 10
_MAILBOX_RECORD_BYTES = 64
_KEPT_RECORD_BYTES = 4 << 10


def needed_bytes(settings: Settings) -> dict[str, int]:
    """Memory at full load by the setting that asks for it, at least."""
    lanes = len(settings.plugins)
    slot_bytes = sum(_SLOT_BYTES.get(name, _SMALL_SLOT_BYTES) for name in settings.plugins)
    return {
        "slots": settings.slots * slot_bytes,
        "queue_size": lanes * settings.queue_size * _WAITING_BYTES,
        "mailbox_records": lanes * settings.mailbox_records * _MAILBOX_RECORD_BYTES,
        "telemetry_memory": settings.telemetry_memory * _KEPT_RECORD_BYTES,
    }


def check_fits(settings: Settings, available_bytes: int | None) -> None:
    """Refuse settings that need more than there is; says nothing where that is not known.

    Raises:
        ConfigError: They do not fit; it names the setting that asks for most.
    """
    needed = needed_bytes(settings)
    total_mib, free_mib = sum(needed.values()) // _MIB, (available_bytes or 0) // _MIB
    if available_bytes is None or total_mib <= free_mib:
        return
    key = max(needed, key=lambda name: needed[name])
    raise ConfigError(
        f"{key}: {getattr(settings, key)} needs {needed[key] // _MIB} MiB at least, "
        f"all settings {total_mib} MiB, of {free_mib} MiB that are free: choose a smaller {key}"
    )
