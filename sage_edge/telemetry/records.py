"""What a record is, and those of events (docs/TELEMETRY.md#the-record); steps.py has those of steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from sage_edge.telemetry.canonical import ZERO_HASH
from sage_edge.telemetry.events import Event

SCHEMA_VERSION = "1.4"

#: What a record can tell of.
KINDS = ("step", "ledger", "allocation", "scene", "trust", "checkpoint")

#: One line of telemetry: what schemas/telemetry.schema.json describes.
Record: TypeAlias = Mapping[str, Any]


def tell(event: Event, *, entity_id: str, seq: int, unix_offset_ns: int) -> dict[str, Any]:
    """The record of an event.

    Args:
        event: ``role`` may be among its fields and is ``H`` by default.
        entity_id: Who signs for it.
        seq: The record's place among all records of the service.
        unix_offset_ns: Unix time minus monotonic time, in nanoseconds.

    Returns:
        A record of schema version 1.4, not yet in the chain.
    """
    return {
        "role": "H",
        **event.fields,
        "schema_version": SCHEMA_VERSION,
        "kind": event.kind,
        "entity_id": entity_id,
        "seq": seq,
        "ts_unix_ns": event.time_ns + unix_offset_ns,
        "ts_mono_ns": event.time_ns,
        "prev_hash": ZERO_HASH,
        "record_hash": ZERO_HASH,
    }
