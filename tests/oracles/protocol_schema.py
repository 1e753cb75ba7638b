"""What the protocol asks of a telemetry record: five fields, and the types of all that it names."""

from __future__ import annotations

from typing import Any

_NUMBER_OR_NULL = {"type": ["number", "null"]}
_AT_LEAST_0 = {"type": "number", "minimum": 0}


def _group(**fields: dict[str, Any]) -> dict[str, Any]:
    """An object of which the fields that are plain numbers are required."""
    required = [name for name, field in fields.items() if field["type"] == "number"]
    return {"type": "object", "required": required, "properties": fields}


PROTOCOL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["plugin", "step_idx", "E", "trust", "budget"],
    "properties": {
        "entity_id": {"type": ["string", "null"]},
        "plugin": {"type": "string"},
        "step_idx": {"type": "integer", "minimum": 0},
        "steps": {"type": ["integer", "null"], "minimum": 0},
        "E": {"type": "number"},
        "dE": _NUMBER_OR_NULL,
        "halt_reason": {"enum": ["slope<eps", "feasible", "max_steps", "timeout", None]},
        "trust": _group(
            monotonicity_ratio=_AT_LEAST_0 | {"maximum": 1},
            dE_variance=_AT_LEAST_0,
            contribution_to_H=_NUMBER_OR_NULL,
        ),
        "budget": _group(ATP_spent=_AT_LEAST_0, time_ms=_AT_LEAST_0),
        "LRC_context": {"type": ["object", "null"]},
    },
}
