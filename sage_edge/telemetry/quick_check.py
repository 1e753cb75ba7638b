"""A predicate compiled from a schema: fast, and sure only of what it accepts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, TypeAlias

#: True only for a value that is valid; False for one that the full validator must look at.
Predicate: TypeAlias = Callable[[Any], bool]
_Schema: TypeAlias = Mapping[str, Any]

_ANNOTATIONS = {"title", "description", "$schema", "$id", "$defs"}
_TYPES: dict[str, Predicate] = {
    "null": lambda value: value is None,
    "boolean": lambda value: value is True or value is False,
    "string": lambda value: type(value) is str,
    "integer": lambda value: type(value) is int,
    "number": lambda value: isfinite(value) if type(value) is float else type(value) is int,
    "object": lambda value: type(value) is dict,
    "array": lambda value: type(value) is list,
}


def compile_check(schema: _Schema, root: _Schema) -> Predicate:
    """A predicate for ``schema``, whose references point into ``root``.

    It knows the keywords that the telemetry schema uses, and accepts less than the standard does
    (``1.0`` is no integer here): what it refuses may still be valid, what it accepts is.
    A keyword that it does not know makes it refuse everything.
    """
    checks = [
        _KEYWORDS[keyword](argument, schema, root) if keyword in _KEYWORDS else _refuse
        for keyword, argument in schema.items()
        if keyword not in _ANNOTATIONS | _COVERED
    ]
    if len(checks) == 1:
        return checks[0]
    return lambda value: all(check(value) for check in checks)


def _refuse(_value: object) -> bool:
    return False


def _type(names: str | list[str], _schema: _Schema, _root: _Schema) -> Predicate:
    if isinstance(names, str):
        return _TYPES[names]
    first, second = (_TYPES[name] for name in names)
    return lambda value: first(value) or second(value)


def _object(properties: Mapping[str, _Schema], schema: _Schema, root: _Schema) -> Predicate:
    """Exactly the required properties, as records have them."""
    if schema.get("additionalProperties") is not False or set(schema["required"]) != set(properties):
        return _refuse
    checks = [(name, compile_check(child, root)) for name, child in properties.items()]
    names = frozenset(properties)
    return lambda value: value.keys() == names and all(check(value[name]) for name, check in checks)


def _items(child: _Schema, _schema: _Schema, root: _Schema) -> Predicate:
    check = compile_check(child, root)
    return lambda value: all(check(item) for item in value)


def _any_of(children: list[_Schema], _schema: _Schema, root: _Schema) -> Predicate:
    checks = [compile_check(child, root) for child in children]
    return lambda value: any(check(value) for check in checks)


def _enum(values: list[Any], _schema: _Schema, _root: _Schema) -> Predicate:
    known = frozenset(values)
    return lambda value: (value is None or type(value) is str) and value in known


def _const(expected: Any, _schema: _Schema, _root: _Schema) -> Predicate:
    return lambda value: type(value) is type(expected) and value == expected


def _pattern(expression: str, _schema: _Schema, _root: _Schema) -> Predicate:
    search = re.compile(expression).search
    return lambda value: search(value) is not None


def _limit(holds: Callable[[Any, Any], bool]) -> _Compiler:
    """A bound of a number, which null does not meet and does not break."""
    return lambda bound, _schema, _root: lambda value: value is None or holds(value, bound)


def _reference(pointer: str, _schema: _Schema, root: _Schema) -> Predicate:
    target: Any = root
    for name in pointer.removeprefix("#/").split("/"):
        target = target[name]
    return compile_check(target, root)


_Compiler: TypeAlias = Callable[[Any, _Schema, _Schema], Predicate]
#: Looked at by ``properties``.
_COVERED = {"required", "additionalProperties"}
_KEYWORDS: dict[str, _Compiler] = {
    "type": _type,
    "properties": _object,
    "items": _items,
    "anyOf": _any_of,
    "enum": _enum,
    "const": _const,
    "pattern": _pattern,
    "minimum": _limit(lambda value, bound: value >= bound),
    "maximum": _limit(lambda value, bound: value <= bound),
    "exclusiveMinimum": _limit(lambda value, bound: value > bound),
    "minLength": _limit(lambda value, bound: len(value) >= bound),
    "$ref": _reference,
}
