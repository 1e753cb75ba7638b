"""The schema that every record satisfies before it leaves the process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

from jsonschema import Draft202012Validator, validators

from sage_edge.config import shared_file
from sage_edge.errors import ConfigError
from sage_edge.telemetry.quick_check import compile_check

_MAX_MESSAGE_CHARS = 200


def load_schema() -> dict[str, Any]:
    """The telemetry schema that ships with the package.

    Raises:
        ConfigError: The file is missing or is not JSON.
    """
    path = shared_file("schemas/telemetry.schema.json")
    try:
        schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigError(f"telemetry schema: {path.name} cannot be read: {exc}; install again") from exc
    return schema


class TelemetryValidator:
    """Checks records against the telemetry schema (draft 2020-12); numbers must also be finite.

    A compiled predicate passes records that are right, a few microseconds each; jsonschema, which takes fifty
    times as long, sees the others and says what is wrong with them.

    Threads: immutable after construction.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        Draft202012Validator.check_schema(schema)
        self.schema = schema
        self._validator = _FiniteValidator(schema)
        kinds = schema["$defs"]["record"]["properties"]["kind"]["enum"]
        self._quick = {kind: compile_check(schema["$defs"][kind], schema) for kind in kinds}

    def errors(self, record: object) -> list[str]:
        """What is wrong with a decoded record, as ``path: message``; empty when it is valid."""
        if isinstance(record, dict) and (quick := self._quick.get(str(record.get("kind")))) and quick(record):
            return []
        return [
            f"{error.json_path}: {error.message}"[:_MAX_MESSAGE_CHARS]
            for error in self._validator.iter_errors(record)
        ]


def _is_finite_number(_checker: object, value: object) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


_FiniteValidator = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("number", _is_finite_number),
)
