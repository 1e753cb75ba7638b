"""What /openapi.json says beyond signatures and models: errors, headers, and how inputs are sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import getdoc
from typing import Any

from pydantic import BaseModel

from sage_edge import errors
from sage_edge.inputs import JSON_TYPE, OCTETS_TYPE, TENSOR_DTYPES, InputKind
from sage_edge.service import models
from sage_edge.service.bodies import DTYPE_HEADER, FORM_TYPE, MOST_MEMBERS, SHAPE_HEADER
from sage_edge.service.errors import STATUS
from sage_edge.service.options import BudgetFields, PlaceFields, SceneFields
from sage_edge.service.replies import PNG_TYPE

#: What FastAPI wants to know of the replies of a route, by status.
Responses = dict[int | str, dict[str, Any]]

RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
TAG = {"ETag": {"schema": {"type": "string"}, "description": "changes when the answer improves"}}
LOCATION = {"Location": {"schema": {"type": "string"}, "description": "where the answer will be"}}
RECORD = '{"seq": 0, "plugin": "vision", "step_idx": 0, "E": 0.052, "halt_reason": null}'
_BINARY = {"schema": {"type": "string", "format": "binary"}}

#: What a body can be refused for.
BODY_ERRORS = (
    errors.InputError,
    errors.ParameterError,
    errors.FrameError,
    errors.FrameTooLargeError,
    errors.MediaTypeError,
    errors.BodyTimeoutError,
    errors.CapacityError,
)
#: What a refinement can end with, and be told.
REFINE_ERRORS = tuple(
    kind
    for kind in STATUS
    if kind not in (errors.ConfigError, errors.UnknownRequestError, errors.CancelledRequestError)
)


def reply(model: Any, description: str, headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A reply that is JSON of a model."""
    return {"model": model, "description": description, "headers": headers or {}}


def answer(description: str, headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A reply that is a whole answer in any of its forms."""
    content = {JSON_TYPE: {}, PNG_TYPE: _BINARY, OCTETS_TYPE: _BINARY}
    return {**reply(models.Result, description, headers), "content": content}


def text(media_type: str, description: str, example: str) -> dict[str, Any]:
    """A reply that is text."""
    schema = {"type": "string"}
    return {"description": description, "content": {media_type: {"schema": schema, "example": example}}}


def failures(*classes: type[errors.SageError]) -> Responses:
    """The replies to errors by status, with an example for every code."""
    found: Responses = {}
    for kind in classes:
        status = STATUS[kind]
        headers = RETRY_AFTER if status in (429, 503) else {}
        entry = found.setdefault(
            status, reply(models.Error, "", headers) | {"content": {JSON_TYPE: {"examples": {}}}}
        )
        examples = entry["content"][JSON_TYPE]["examples"]
        message = (getdoc(kind) or "").partition("\n")[0]
        examples[kind.code] = {"value": {"error": {"code": kind.code, "message": message}}}
        entry["description"] = ", ".join(f"`{code}`" for code in examples)
    return found


def header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    """A header of a request."""
    known = {"name": name, "in": "header", "required": False, "description": description}
    return {**known, "schema": {"type": "string", **schema}}


REFINE_HEADERS = [
    header(SHAPE_HEADER, f"of a raw tensor, sent as {OCTETS_TYPE}: 480,640,3", pattern=r"^\d+(,\d+)*$"),
    header(DTYPE_HEADER, f"of a raw tensor, sent as {OCTETS_TYPE}", enum=list(TENSOR_DTYPES)),
    header("Prefer", "RFC 7240: respond-async for an address to fetch the answer from; wait=SECONDS"),
]


def complete(document: dict[str, Any], kinds: Iterable[InputKind]) -> None:
    """Add to a document how inputs of these kinds are sent, alone and in scenes."""
    used = {kind.key: kind for kind in kinds}
    schemas, paths = document["components"]["schemas"], document["paths"]
    for name, model in (("Budget", BudgetFields), ("QualityReport", models.QualityReport)):
        schemas[name] = {**model.model_json_schema(), "title": name}
    for kind in used.values():
        schemas[_title(kind)] = dict(kind.schema)
        schemas[f"Refine{_title(kind)}"] = _with_options(kind)
        schemas[f"{_title(kind)}Member"] = _with_options(kind, plugin={"type": "string"})
    schemas["Form"] = _form(used)
    schemas["Scene"] = _object({"members": _members(used), **_fields(SceneFields)}, ["members"])
    paths["/v1/refine/{name}"]["post"]["requestBody"] = {"required": True, "content": _inputs(used)}
    paths["/v1/scenes"]["post"]["requestBody"] = {"required": True, "content": _scenes(used)}
    paths["/v1/quality"]["post"]["requestBody"] = {
        "required": True,
        "content": {JSON_TYPE: {"schema": _ref("QualityReport")}},
    }


def _inputs(kinds: Mapping[str, InputKind]) -> dict[str, Any]:
    """The ways to send one input: JSON, a form, or a body of its own."""
    budget = {"max_steps": 4, "deadline_ms": 50}
    examples = {key: {"value": {key: kind.example, "budget": budget}} for key, kind in kinds.items()}
    own = (media_type for kind in kinds.values() for media_type in kind.media_types)
    return {
        JSON_TYPE: {"schema": _one_of("Refine{}", kinds), "examples": examples},
        FORM_TYPE: {"schema": _ref("Form")},
        **{media_type: _BINARY for media_type in own if media_type != JSON_TYPE},
    }


def _scenes(kinds: Mapping[str, InputKind]) -> dict[str, Any]:
    members = [{"plugin": "NAME", key: kind.example} for key, kind in kinds.items()]
    form = {
        "type": "object",
        "description": "a part for each member, its field's name the plugin's; all that is no input in scene",
        "additionalProperties": _BINARY["schema"],
        "properties": {
            "scene": {"type": "string", "description": "a JSON object: atp, deadline_ms, policy, members"}
        },
    }
    return {
        JSON_TYPE: {"schema": _ref("Scene"), "example": {"members": members, "atp": 900, "policy": "greedy"}},
        FORM_TYPE: {"schema": form},
    }


def _members(kinds: Mapping[str, InputKind]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "maxItems": MOST_MEMBERS, "items": _one_of("{}Member", kinds)}


def _with_options(kind: InputKind, **more: Any) -> dict[str, Any]:
    own = {**more, kind.key: _ref(_title(kind))}
    return _object({**own, "budget": _ref("Budget"), **_fields(PlaceFields)}, list(own))


def _form(kinds: Mapping[str, InputKind]) -> dict[str, Any]:
    """One object for all kinds: generated clients know no choice of forms."""
    return {
        "type": "object",
        "description": "the one that the plugin takes; shape and dtype of a raw tensor, and every option of "
        "the query, may be fields too",
        "minProperties": 1,
        "properties": dict.fromkeys(kinds, _BINARY["schema"]),
    }


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    fields: dict[str, Any] = model.model_json_schema()["properties"]
    return fields


def _object(properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    known = {"type": "object", "additionalProperties": False, "required": required}
    return {**known, "properties": dict(properties)}


def _one_of(name: str, kinds: Mapping[str, InputKind]) -> dict[str, Any]:
    refs = [_ref(name.format(_title(kind))) for kind in kinds.values()]
    return refs[0] if len(refs) == 1 else {"oneOf": refs}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _title(kind: InputKind) -> str:
    """The kind's component; of what stands under its key."""
    return kind.key.title().replace("_", "")
