"""What /openapi.json says beyond the signatures: bodies, answers, errors, examples."""

from __future__ import annotations

from typing import Any

from sage_edge.orchestrator import LARGEST_BUDGET, MOST_BRANCHES, POLICIES
from sage_edge.service.bodies import (
    DTYPE_HEADER,
    FORM_TYPE,
    IMAGE_TYPES,
    JSON_TYPE,
    MOST_MEMBERS,
    SHAPE_HEADER,
    TENSOR_DTYPES,
    TENSOR_TYPE,
)
from sage_edge.service.options import MOST_PRIORITY, NAME_PATTERN
from sage_edge.service.replies import PNG_TYPE, SSE_TYPE

NDJSON_TYPE = "application/x-ndjson"
SCHEMA_TYPE = "application/schema+json"
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}
_MESSAGES = {
    401: (
        "A key is asked for",
        "unauthorized",
        "the key is not known here; `sage-edge keys add NAME` makes one",
    ),
    404: ("No such plugin", "unknown_plugin", "plugin: expected one of ['vision'], got 'audio'"),
    406: ("No accepted type can be made", "not_acceptable", "Accept: expected one of …, got 'text/csv'"),
    408: ("The body did not arrive in time", "body_timeout", "body: expected all of it within 30 s"),
    409: (
        "A newer frame of its stream took its place",
        "superseded",
        "a newer frame of stream 'cam0' took …",
    ),
    413: ("Body or frame above the limit", "frame_too_large", "frame: expected at most …, got 60000 x 60000"),
    415: ("Not a type that holds a frame", "unsupported_media_type", "Content-Type: expected one of …"),
    422: (
        "A frame or parameter that cannot be used",
        "bad_parameter",
        "deadline_ms: expected more than 0, got 0",
    ),
    500: ("An engine that failed, or a defect", "internal", "an internal error; the log has more"),
    429: ("The queue is full", "queue_full", "64 requests are waiting already; try again later"),
    503: (
        "Draining, or no time for even the initial answer",
        "deadline_too_short",
        "the deadline leaves no time …",
    ),
}


def _error(status: int, *finding: str) -> dict[str, Any]:
    """An error's reply; ``finding`` is a description, code and message other than the usual ones."""
    description, code, message = finding or _MESSAGES[status]
    example = {"error": {"code": code, "message": message}}
    reply: dict[str, Any] = {
        "description": description,
        "content": {JSON_TYPE: {"schema": _ERROR_SCHEMA, "example": example}},
    }
    if status in (429, 503):
        reply["headers"] = _RETRY_AFTER
    return reply


_UNKNOWN_REQUEST = _error(404, "No such request", "unknown_request", "request 'b3f1': unknown, or …")
_RESULT_EXAMPLE = {
    "request_id": "b3f1",
    "plugin": "vision",
    "backend": "onnxruntime-cpu",
    "halt_reason": "slope<eps",
    "is_partial": False,
    "steps": 4,
    "answer_step": 4,
    "E": 0.021,
    "E_norm": 0.41,
    "E0": 0.052,
    "trust": 0.83,
    "monotonicity_ratio": 1.0,
    "ATP_spent": 512.4,
    "branches": 1,
    "branch_id": 0,
    "rewinds": 0,
    "run_id": 7,
    "scene_id": "9c41",
    "time_ms": {"queue": 0.1, "refine": 34.2, "total": 37.0},
    "answer": {
        "shape": [480, 640],
        "dtype": "uint8",
        "classes": {"background": 0.9, "nucleus": 0.08, "boundary": 0.02},
        "png_base64": "iVBORw0…",
    },
}
_RESULT_SCHEMA = {
    "type": "object",
    "required": [
        "request_id",
        "plugin",
        "halt_reason",
        "steps",
        "E",
        "trust",
        "ATP_spent",
        "time_ms",
        "answer",
    ],
    "properties": {
        "request_id": {"type": "string"},
        "plugin": {"type": "string"},
        "backend": {"type": "string"},
        "halt_reason": {"type": ["string", "null"], "description": "null while it still runs"},
        "is_partial": {"type": "boolean"},
        "steps": {"type": "integer", "minimum": 0},
        "answer_step": {"type": "integer", "minimum": 0},
        "E": {"type": ["number", "null"]},
        "E_norm": {"type": ["number", "null"]},
        "E0": {"type": ["number", "null"]},
        "trust": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "monotonicity_ratio": {"type": "number", "minimum": 0, "maximum": 1},
        "ATP_spent": {"type": "number", "minimum": 0},
        "branches": {"type": "integer", "minimum": 1},
        "branch_id": {"type": "integer", "minimum": 0},
        "rewinds": {"type": "integer", "minimum": 0},
        "run_id": {"type": "integer"},
        "scene_id": {"type": "string"},
        "time_ms": {"type": "object"},
        "answer": {"type": "object"},
    },
}
_BUDGET_PROPERTIES = {
    "max_steps": {"type": "integer", "minimum": 0},
    "deadline_ms": {"type": "number", "exclusiveMinimum": 0, "maximum": LARGEST_BUDGET},
    "atp": {"type": "number", "exclusiveMinimum": 0, "maximum": LARGEST_BUDGET},
    "eps": {"type": "number", "minimum": 0},
    "quality": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "branches": {"type": "integer", "minimum": 1, "maximum": MOST_BRANCHES},
}
_PLACE_PROPERTIES = {
    "priority": {"type": "integer", "minimum": -MOST_PRIORITY, "maximum": MOST_PRIORITY},
    "stream_id": {"type": "string", "pattern": NAME_PATTERN},
    "keep": {"enum": ["latest"]},
}
_FRAME_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["base64"],
    "properties": {
        "base64": {
            "type": "string",
            "description": "an image's bytes, or with shape and dtype a raw tensor's",
        },
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        "dtype": {"enum": list(TENSOR_DTYPES)},
    },
}
_FORM_SCHEMA = {
    "type": "object",
    "required": ["frame"],
    "properties": {
        "frame": {"type": "string", "format": "binary"},
        "shape": {"type": "string"},
        "dtype": {"enum": list(TENSOR_DTYPES)},
        **_BUDGET_PROPERTIES,
        **_PLACE_PROPERTIES,
    },
}
_PROBLEM_SCHEMA = {
    "type": "object",
    "description": "for a plugin that takes problems, such as control: docs/CONTROL.md",
    "required": ["kind"],
    "properties": {"kind": {"type": "string"}},
}
_OPTION_PROPERTIES = {
    "budget": {"type": "object", "properties": _BUDGET_PROPERTIES, "additionalProperties": False},
    **_PLACE_PROPERTIES,
}
_INPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "oneOf": [{"required": ["frame"]}, {"required": ["problem"]}],
    "additionalProperties": False,
    "properties": {"frame": _FRAME_SCHEMA, "problem": _PROBLEM_SCHEMA, **_OPTION_PROPERTIES},
}
_JSON_BODY = {
    "schema": _INPUT_SCHEMA,
    "example": {"frame": {"base64": "/9j/4AAQ…"}, "budget": {"max_steps": 4, "deadline_ms": 50}},
}
_TENSOR_HEADERS = [
    {
        "name": SHAPE_HEADER,
        "in": "header",
        "required": False,
        "description": f"of a {TENSOR_TYPE} body: 480,640,3 or 480,640",
        "schema": {"type": "string", "pattern": r"^\d+(,\d+)*$"},
    },
    {
        "name": DTYPE_HEADER,
        "in": "header",
        "required": False,
        "description": f"of a {TENSOR_TYPE} body",
        "schema": {"enum": list(TENSOR_DTYPES)},
    },
]

_PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "RFC 7240: respond-async for an address to fetch the answer from; wait=SECONDS",
    "schema": {"type": "string"},
}
_TAG = {"ETag": {"schema": {"type": "string"}, "description": "changes when the answer improves"}}
_WHOLE_ANSWER = {
    JSON_TYPE: {"schema": _RESULT_SCHEMA, "example": _RESULT_EXAMPLE},
    PNG_TYPE: _BINARY,
    TENSOR_TYPE: _BINARY,
}


def quality(schema: dict[str, Any]) -> dict[str, Any]:
    """What is said of ``POST /v1/quality``, whose body has that schema."""
    report = {"request_id": "b3f1", "quality": 0.71, "source": "label"}
    talent = {"from": 0.3, "change": 0.0042, "to": 0.3042}
    trust = {"request_id": "b3f1", "t3": {"talent": talent, "…": "…"}, "weight_before": 0.3, "…": "…"}
    return {
        "responses": {
            200: _reply("The trust in the plugin, before and after, as its record has it", JSON_TYPE, trust),
            404: _UNKNOWN_REQUEST,
            **{status: _error(status) for status in (408, 413, 415, 422, 429)},
        },
        "openapi_extra": {
            "requestBody": {"required": True, "content": {JSON_TYPE: {"schema": schema, "example": report}}}
        },
    }


def _queued(description: str, **headers: Any) -> dict[str, Any]:
    """The reply of 202: the answer is to be fetched later."""
    schema = {
        "type": "object",
        "required": ["request_id", "state"],
        "properties": {"request_id": {"type": "string"}, "state": {"enum": ["queued"]}},
    }
    example = {"request_id": "b3f1", "state": "queued"}
    return {
        "description": description,
        "headers": {**_RETRY_AFTER, **headers},
        "content": {JSON_TYPE: {"schema": schema, "example": example}},
    }


REFINE: dict[str, Any] = {
    "responses": {
        202: _queued(
            "To be fetched later, as was preferred",
            Location={"schema": {"type": "string"}, "description": "where the answer will be"},
        ),
        200: {
            "description": "The best answer within the budget",
            "content": {
                **_WHOLE_ANSWER,
                SSE_TYPE: {
                    "schema": {"type": "string", "description": "step events, then one result or error"},
                    "example": 'id: 7\nevent: step\ndata: {"step_idx": 0, "E": 0.052, "…": "…"}\n\n',
                },
            },
        },
        **{status: _error(status) for status in _MESSAGES},
    },
    "openapi_extra": {
        "parameters": [*_TENSOR_HEADERS, _PREFER],
        "requestBody": {
            "required": True,
            "content": {
                **dict.fromkeys(IMAGE_TYPES, _BINARY),
                TENSOR_TYPE: _BINARY,
                FORM_TYPE: {"schema": _FORM_SCHEMA},
                JSON_TYPE: _JSON_BODY,
            },
        },
    },
}

ANSWER: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The best answer so far, or the final one",
            "headers": _TAG,
            "content": _WHOLE_ANSWER,
        },
        202: _queued("It waits for a slot"),
        304: {"description": "The answer is still the one that If-None-Match names", "headers": _TAG},
        404: _UNKNOWN_REQUEST,
        **{status: _error(status) for status in (406, 409, 422, 500, 503)},
    },
    "openapi_extra": {
        "parameters": [
            {
                "name": "If-None-Match",
                "in": "header",
                "required": False,
                "description": "the ETag of the answer that is already there",
                "schema": {"type": "string"},
            }
        ]
    },
}
GIVE_UP: dict[str, Any] = {
    "responses": {204: {"description": "Given up"}, 404: _UNKNOWN_REQUEST, 422: _error(422)}
}

_SHARED_PROPERTIES = {
    "atp": _BUDGET_PROPERTIES["atp"],
    "deadline_ms": _BUDGET_PROPERTIES["deadline_ms"],
    "policy": {"enum": list(POLICIES)},
}
_SCENE_BODY = {
    "schema": {
        "type": "object",
        "required": ["members"],
        "additionalProperties": False,
        "properties": {
            "members": {
                "type": "array",
                "minItems": 1,
                "maxItems": MOST_MEMBERS,
                "items": {
                    **_INPUT_SCHEMA,
                    "required": ["plugin"],
                    "properties": {"plugin": {"type": "string"}, **_INPUT_SCHEMA["properties"]},
                },
            },
            **_SHARED_PROPERTIES,
        },
    },
    "example": {
        "members": [
            {"plugin": "vision", "frame": {"base64": "/9j/4AAQ…"}, "budget": {"max_steps": 4}},
            {"plugin": "control", "problem": {"kind": "qp", "…": "…"}, "priority": 1},
        ],
        "atp": 900,
        "deadline_ms": 80,
        "policy": "greedy",
    },
}
_SCENE_FORM = {
    "schema": {
        "type": "object",
        "description": "a file for each member, its field's name the plugin's; all that is no frame in scene",
        "additionalProperties": {"type": "string", "format": "binary"},
        "properties": {
            "scene": {"type": "string", "description": "a JSON object: atp, deadline_ms, policy, members"}
        },
    }
}
_SCENE_EXAMPLE = {
    "scene_id": "9c41",
    "results": [
        _RESULT_EXAMPLE,
        {"error": {"code": "deadline_too_short", "message": "the deadline leaves …"}},
    ],
    "H": [{"t_ms": 12.5, "run_id": 7, "step_idx": 0, "H": 0.41}],
    "global_halt": True,
    "budget": {"policy": "greedy", "atp": 900.0, "ATP_spent": 512.4},
}
_SCENE_SCHEMA = {
    "type": "object",
    "required": ["scene_id", "results", "H", "global_halt", "budget"],
    "properties": {
        "scene_id": {"type": "string"},
        "results": {"type": "array", "items": {"anyOf": [_RESULT_SCHEMA, _ERROR_SCHEMA]}},
        "H": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["t_ms", "run_id", "step_idx", "H"],
                "properties": {
                    "t_ms": {"type": "number"},
                    "run_id": {"type": "integer"},
                    "step_idx": {"type": "integer", "minimum": 0},
                    "H": {"type": ["number", "null"]},
                },
            },
        },
        "global_halt": {"type": "boolean"},
        "budget": {
            "type": "object",
            "required": ["policy", "atp", "ATP_spent"],
            "properties": {
                "policy": {"enum": list(POLICIES)},
                "atp": {"type": ["number", "null"]},
                "ATP_spent": {"type": "number", "minimum": 0},
            },
        },
    },
}
SCENE: dict[str, Any] = {
    "responses": {
        200: {
            "description": "Every result, in the order of the members",
            "content": {JSON_TYPE: {"schema": _SCENE_SCHEMA, "example": _SCENE_EXAMPLE}},
        },
        **{status: _error(status) for status in _MESSAGES if status not in (409,)},
    },
    "openapi_extra": {
        "requestBody": {"required": True, "content": {FORM_TYPE: _SCENE_FORM, JSON_TYPE: _SCENE_BODY}}
    },
}


def _reply(description: str, media_type: str, example: Any) -> dict[str, Any]:
    kind = "string" if isinstance(example, str) else "object"
    return {
        "description": description,
        "content": {media_type: {"schema": {"type": kind}, "example": example}},
    }


_RECORD_EXAMPLE = '{"seq": 0, "plugin": "vision", "step_idx": 0, "E": 0.052, "halt_reason": null, "…": "…"}'
_HALTING_EXAMPLE = {"K": 3, "eps": 0.0001, "max_steps": 8, "E_scale": 0.13}
_LANE_EXAMPLE = {
    "backend": "onnxruntime-cpu",
    "loop": {"mode": "host", "reason": ""},
    "can_rewind": True,
    "slots": 8,
    "live": 1,
    "waiting": 0,
    "tick_ms": 4.2,
}

RECORDS: dict[str, Any] = {
    "responses": {
        200: _reply("JSON lines", NDJSON_TYPE, _RECORD_EXAMPLE + "\n"),
        422: _error(422),
    }
}
RECORD_EVENTS: dict[str, Any] = {
    "responses": {
        200: _reply(
            "``record`` events; ``dropped`` counts those that are missing before the next",
            SSE_TYPE,
            f"id: 0\nevent: record\ndata: {_RECORD_EXAMPLE}\n\n",
        ),
        422: _error(422),
    }
}
RECORD_SCHEMA: dict[str, Any] = {
    "responses": {200: _reply("JSON Schema, draft 2020-12", SCHEMA_TYPE, {"title": "IRP telemetry record"})}
}
AUDIT_HEAD: dict[str, Any] = {
    "responses": {
        200: _reply(
            "The head",
            JSON_TYPE,
            {
                "begin_seq": 0,
                "begin_prev_hash": "0000…",
                "signed_seq": 1024,
                "signed_hash": "5f1c…",
                "public_key": "8d1b…",
                "signature": "q83v…",
            },
        ),
        404: _error(404, "Nothing is signed", "not_found", "GET /v1/audit/head: expected a signed record, …"),
    }
}
METRICS: dict[str, Any] = {
    "responses": {200: _reply("Exposition", "text/plain", 'sage_slots{plugin="vision"} 8.0\n')}
}
LIVE: dict[str, Any] = {"responses": {200: _reply("Alive", JSON_TYPE, {"live": True})}}
READY: dict[str, Any] = {
    "responses": {
        200: _reply("Ready", JSON_TYPE, {"ready": True, "state": "ready", "problems": []}),
        503: {
            **_reply("Not ready", JSON_TYPE, {"ready": False, "state": "draining", "problems": []}),
            "headers": _RETRY_AFTER,
        },
    }
}
STATUS: dict[str, Any] = {
    "responses": {
        200: _reply(
            "What runs where",
            JSON_TYPE,
            {"version": "0.1.0", "state": "ready", "plugins": {"vision": _LANE_EXAMPLE}},
        )
    }
}
PLUGINS: dict[str, Any] = {
    "responses": {
        200: _reply("By name", JSON_TYPE, {"vision": {"version": "1.0.0", "halting": _HALTING_EXAMPLE}})
    }
}
