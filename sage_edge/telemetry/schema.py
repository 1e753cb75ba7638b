"""The schema that every record satisfies before it leaves the process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, TypeAlias

from jsonschema import Draft202012Validator, ValidationError, validators

from sage_edge.config import shared_file
from sage_edge.errors import ConfigError

_Validator: TypeAlias = Any  # jsonschema's own protocol leaves out descend()

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
    """Checks records against a JSON Schema (draft 2020-12); numbers must also be finite.

    Threads: immutable after construction.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        Draft202012Validator.check_schema(schema)
        self.schema = schema
        self._validator = _FiniteValidator(schema)

    def errors(self, record: object) -> list[str]:
        """What is wrong with a decoded record, as ``path: message``; empty when it is valid."""
        return [
            f"{error.json_path}: {error.message}"[:_MAX_MESSAGE_CHARS]
            for error in self._validator.iter_errors(record)
        ]


def _is_finite_number(_checker: object, value: object) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _properties(
    validator: _Validator, properties: Mapping[str, Any], instance: object, _schema: object
) -> Iterator[ValidationError]:
    """The keyword of the standard, with a short way for fields that are right.

    To descend into a subschema builds a validator and costs far more than the check itself, so it is done
    only when there is an error to describe.
    """
    if not isinstance(instance, dict):
        return
    for name, subschema in properties.items():
        if name in instance and not _holds(validator, subschema, instance[name]):
            yield from validator.descend(instance[name], subschema, path=name, schema_path=name)


def _holds(validator: _Validator, subschema: Mapping[str, Any], value: object) -> bool:
    """Whether a value satisfies each keyword of a subschema."""
    for keyword, argument in subschema.items():
        if check := validator.VALIDATORS.get(keyword):
            for _error in check(validator, argument, value, subschema) or ():
                return False
    return True


_FiniteValidator = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    validators={"properties": _properties},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("number", _is_finite_number),
)
