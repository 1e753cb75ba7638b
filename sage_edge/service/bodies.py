"""From the bytes of a request to the frames and documents that it carries, still encoded."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from sage_edge.errors import (
    CancelledRequestError,
    FrameError,
    FrameTooLargeError,
    InputError,
    MediaTypeError,
    SageError,
    ShapeError,
)

SHAPE_HEADER = "Sage-Tensor-Shape"
DTYPE_HEADER = "Sage-Tensor-Dtype"
IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp")
TENSOR_TYPE = "application/octet-stream"
FORM_TYPE = "multipart/form-data"
JSON_TYPE = "application/json"
TENSOR_DTYPES = ("uint8", "float16", "float32")
#: Most members of a scene.
MOST_MEMBERS = 16
#: What stands beside ``budget`` in a JSON body, not in it.
PLACE_FIELDS = ("priority", "stream_id", "keep")
#: What a client that names no type sends; such a body is looked at.
_UNNAMED_TYPES = ("", "application/x-www-form-urlencoded")


@dataclass(frozen=True, slots=True)
class Body:
    """A body as it came: the encoded frame, and the options that travelled with it.

    Attributes:
        content: The frame's bytes.
        shape, dtype: Of a raw tensor, as they came; None for an image.
        fields: Budget and place of a form or a JSON body, by name.
        document: The problem of a JSON body; None where there is a frame.
    """

    content: bytes
    shape: str | None = None
    dtype: Any = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    document: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SceneBody:
    """A scene as it came.

    Attributes:
        members: Plugin and body of each, in order.
        fields: The shared budget, by name.
    """

    members: Sequence[tuple[str, Body]]
    fields: Mapping[str, Any]


@contextmanager
def naming_member(number: int) -> Iterator[None]:
    """Let an error say which member of a scene it is about."""
    try:
        yield
    except SageError as exc:
        exc.args = (f"members[{number}]: {exc}",)
        raise


async def read_body(request: Request, max_bytes: int) -> Body:
    """Read a request's body, whatever its type.

    Raises:
        FrameTooLargeError: It is longer than ``max_bytes``.
        MediaTypeError: Its type is none that holds a frame.
        FrameError: It is empty, or a form or JSON document without a frame.
        CancelledRequestError: The caller went away while sending it.
    """
    media_type = _media_type(request, (*IMAGE_TYPES, TENSOR_TYPE, FORM_TYPE, JSON_TYPE), _UNNAMED_TYPES)
    limited = _limited(request, max_bytes)
    if media_type == FORM_TYPE:
        async with _form(limited, max_files=1, max_fields=16) as form:
            return await _from_form(form)
    content = await _bytes(limited)
    if not content:
        raise FrameError("body: expected a frame, got an empty body")
    if media_type == JSON_TYPE:
        return _from_document(_parse(content))
    if media_type == TENSOR_TYPE:
        return Body(content, request.headers.get(SHAPE_HEADER), request.headers.get(DTYPE_HEADER))
    return Body(content)


async def read_scene(request: Request, max_bytes: int) -> SceneBody:
    """Read the members of a scene, from a form or a JSON document.

    Raises:
        FrameTooLargeError: All of it is longer than ``max_bytes``.
        MediaTypeError: It is neither.
        FrameError: It does not hold 1 to MOST_MEMBERS members with a frame or a problem each.
        CancelledRequestError: The caller went away while sending it.
    """
    limited = _limited(request, max_bytes)
    if _media_type(request, (FORM_TYPE, JSON_TYPE)) == FORM_TYPE:
        async with _form(limited, max_files=MOST_MEMBERS, max_fields=1) as form:
            return await _scene_from_form(form)
    return _scene_from_document(_parse(await _bytes(limited)))


async def read_document(request: Request, max_bytes: int) -> Any:
    """Read a JSON document.

    Raises:
        FrameTooLargeError: It is longer than ``max_bytes``.
        MediaTypeError: It is of another type.
        InputError: It is not valid JSON.
        CancelledRequestError: The caller went away while sending it.
    """
    _media_type(request, (JSON_TYPE,))
    return _parse(await _bytes(_limited(request, max_bytes)), InputError)


def _media_type(request: Request, expected: Sequence[str], tolerated: Sequence[str] = ()) -> str:
    media_type = _bare(request.headers.get("content-type", ""))
    if media_type not in (*expected, *tolerated):
        raise MediaTypeError(f"Content-Type: expected one of {', '.join(expected)}, got {media_type!r}")
    return media_type


def _bare(content_type: str) -> str:
    """A media type without its parameters, lower case."""
    return content_type.partition(";")[0].strip().lower()


def _limited(request: Request, max_bytes: int) -> Request:
    """The same request, which stops reading at the limit instead of behind it."""
    seen = 0

    async def receive() -> Message:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > max_bytes:
            raise FrameTooLargeError(f"body: expected at most {max_bytes} bytes, got more")
        return message

    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise FrameTooLargeError(f"body: expected at most {max_bytes} bytes, got {declared}")
    return Request(request.scope, receive)


async def _bytes(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect as exc:
        raise _gone() from exc


@asynccontextmanager
async def _form(request: Request, max_files: int, max_fields: int) -> AsyncIterator[FormData]:
    try:
        form = await request.form(max_files=max_files, max_fields=max_fields)
    except ClientDisconnect as exc:
        raise _gone() from exc
    except HTTPException as exc:
        raise FrameError(f"body: not a usable form: {exc.detail}") from exc
    try:
        yield form
    finally:
        await form.close()


def _gone() -> CancelledRequestError:
    return CancelledRequestError("the caller went away while sending the body")


async def _from_form(form: FormData) -> Body:
    upload = form.get("frame")
    if not isinstance(upload, UploadFile):
        raise FrameError(f"body: expected a file in the form field 'frame', got fields {sorted(form)}")
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    shape, dtype = fields.pop("shape", None), fields.pop("dtype", None)
    return Body(await _uploaded(upload, "frame"), shape, dtype, fields)


async def _uploaded(upload: UploadFile, name: str) -> bytes:
    content = await upload.read()
    if not content:
        raise FrameError(f"body: expected a frame in the form field {name!r}, got an empty file")
    return content


async def _scene_from_form(form: FormData) -> SceneBody:
    """Each file is a member, its field's name the plugin; the field ``scene`` holds all that is no frame."""
    parts = [(name, part) for name, part in form.multi_items() if name != "scene"]
    text = form.get("scene", "{}")
    scene = _parse(text) if isinstance(text, str) else None
    if not isinstance(scene, dict):
        raise FrameError(f"scene: expected a form field with a JSON object, got {text!r}")
    options = scene.pop("members", [{} for _ in parts])
    if not isinstance(options, list) or len(options) != len(parts):
        raise FrameError(
            f"scene.members: expected options for each of the {len(parts)} files, got {options!r}"
        )
    members = []
    for number, ((plugin, part), option) in enumerate(zip(parts, options, strict=True)):
        with naming_member(number):
            members.append((plugin, await _from_part(plugin, part, option)))
    return _scene(members, scene)


async def _from_part(plugin: str, part: UploadFile | str, options: Any) -> Body:
    """A member of a form: a frame of any type, or a JSON document of its own."""
    if not isinstance(part, UploadFile):
        raise FrameError(f"body: expected a file in the form field {plugin!r}, got a text")
    if not isinstance(options, dict):
        raise FrameError(f"scene.members: expected an object of options, got {options!r}")
    content = await _uploaded(part, plugin)
    shape, dtype = options.pop("shape", None), options.pop("dtype", None)
    fields = _fields(options)
    if _bare(part.content_type or "") == JSON_TYPE:
        body = _from_document(_parse(content))
        return Body(body.content, body.shape, body.dtype, {**body.fields, **fields}, body.document)
    return Body(content, _shape(shape), dtype, fields)


def _scene_from_document(document: Any) -> SceneBody:
    entries = document.pop("members", None) if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise FrameError('body: expected {"members": [{"plugin": "…", "frame": {…}}, …]}')
    members = []
    for number, entry in enumerate(entries[: MOST_MEMBERS + 1]):
        with naming_member(number):
            plugin = entry.pop("plugin", None) if isinstance(entry, dict) else None
            if not isinstance(plugin, str):
                raise FrameError(f"expected an object that names its plugin, got {entry!r}")
            members.append((plugin, _from_document(entry)))
    return _scene(members, document)


def _scene(members: Sequence[tuple[str, Body]], fields: Mapping[str, Any]) -> SceneBody:
    if not 1 <= len(members) <= MOST_MEMBERS:
        count = "more" if members else "none"
        raise FrameError(f"members: expected 1 to {MOST_MEMBERS} of them, got {count}")
    return SceneBody(members, fields)


def _parse(content: bytes | str, error: type[InputError] = FrameError) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise error(f"body: not valid JSON: {exc}") from exc


def _from_document(document: Any) -> Body:
    """The frame or the problem of a JSON object, and the options beside it."""
    if isinstance(document, dict) and isinstance(document.get("problem"), dict):
        return Body(b"", fields=_fields(document, "problem"), document=document["problem"])
    if not isinstance(document, dict) or not isinstance(document.get("frame"), dict):
        raise FrameError(
            'body: expected {"frame": {"base64": "…"}}, {"frame": {"base64", "shape", "dtype"}} '
            'or {"problem": {…}}'
        )
    frame, fields = document["frame"], _fields(document, "frame")
    if not set(frame) <= {"base64", "shape", "dtype"}:
        raise FrameError(f"frame: expected the keys base64, shape and dtype, got {sorted(frame)}")
    return Body(_from_base64(frame.get("base64")), _shape(frame.get("shape")), frame.get("dtype"), fields)


def _fields(document: Mapping[str, Any], content: str = "") -> dict[str, Any]:
    """The options of a JSON object, those of its budget and those beside it, as one."""
    budget = document.get("budget", {})
    beside = {name: value for name, value in document.items() if name not in (content, "budget")}
    if not isinstance(budget, dict) or not set(beside) <= set(PLACE_FIELDS):
        expected = " and ".join(name for name in (content, "budget") if name)
        raise FrameError(
            f"body: expected the keys {expected} (objects), {', '.join(PLACE_FIELDS)}, got {sorted(document)}"
        )
    if misplaced := set(budget) & set(PLACE_FIELDS):
        raise FrameError(f"budget: expected {', '.join(sorted(misplaced))} beside it, got it inside")
    return {**budget, **beside}


def _shape(shape: Any) -> str | None:
    """A shape in JSON as its header has it."""
    if shape is None:
        return None
    if not isinstance(shape, list):
        raise ShapeError(f"frame.shape: expected a list of integers, got {shape!r}")
    return ",".join(map(str, shape))


def _from_base64(text: object) -> bytes:
    if not isinstance(text, str) or not text:
        raise FrameError(f"frame.base64: expected a string that is not empty, got {text!r}")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise FrameError(f"frame.base64: expected base64 without line breaks: {exc}") from exc
