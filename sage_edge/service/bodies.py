"""From the bytes of a request to a frame or a document."""

from __future__ import annotations

import base64
import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from sage_edge.errors import (
    CancelledRequestError,
    FrameError,
    FrameTooLargeError,
    MediaTypeError,
    ShapeError,
)
from sage_edge.frames import decode_image

SHAPE_HEADER = "Sage-Tensor-Shape"
DTYPE_HEADER = "Sage-Tensor-Dtype"
IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp")
TENSOR_TYPE = "application/octet-stream"
TENSOR_DTYPES = ("uint8", "float16", "float32")
MAX_DIMENSIONS = 8
#: What a client that names no type sends; such a body is looked at.
_UNNAMED_TYPES = ("", "application/x-www-form-urlencoded")


@dataclass(frozen=True, slots=True)
class Body:
    """A body as it came: the encoded frame, and the budget fields that travelled with it.

    Attributes:
        content: The frame's bytes.
        media_type: Of the content, lower case, without parameters.
        shape, dtype: Of a raw tensor, as they came; None for an image.
        fields: Budget parameters of a form or a JSON body, by name.
        document: The problem of a JSON body; None where there is a frame.
    """

    content: bytes
    media_type: str
    shape: str | None = None
    dtype: Any = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    document: Mapping[str, Any] | None = None


async def read_body(request: Request, max_bytes: int) -> Body:
    """Read a request's body, whatever its type.

    Raises:
        FrameTooLargeError: It is longer than ``max_bytes``.
        MediaTypeError: Its type is none that holds a frame.
        FrameError: It is empty, or a form or JSON document without a frame.
        CancelledRequestError: The caller went away while sending it.
    """
    try:
        return await _read(request, max_bytes)
    except ClientDisconnect as exc:
        raise CancelledRequestError("the caller went away while sending the body") from exc


async def _read(request: Request, max_bytes: int) -> Body:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    known = (*IMAGE_TYPES, TENSOR_TYPE, "multipart/form-data", "application/json", *_UNNAMED_TYPES)
    if media_type not in known:
        raise MediaTypeError(f"Content-Type: expected one of {', '.join(known[:6])}, got {media_type!r}")
    limited = _limited(request, max_bytes)
    if media_type == "multipart/form-data":
        return await _from_form(limited)
    content = await limited.body()
    if not content:
        raise FrameError("body: expected a frame, got an empty body")
    if media_type == "application/json":
        return _from_json(content)
    return Body(content, media_type, request.headers.get(SHAPE_HEADER), request.headers.get(DTYPE_HEADER))


def to_frame(body: Body, max_pixels: int) -> NDArray[np.generic]:
    """Decode a body.

    Returns:
        uint8 [H, W, 3] RGB for an image; the array as it was sent for a tensor.

    Raises:
        FrameError: The bytes are no image that can be decoded.
        ShapeError: A tensor's shape and dtype do not fit its length.
        FrameTooLargeError: It has more than ``max_pixels`` pixels.
    """
    if body.document is not None:
        raise FrameError("body: this plugin takes a frame, got a problem")
    if body.media_type == TENSOR_TYPE and (body.shape is not None or body.dtype is not None):
        return _tensor(body, max_pixels)
    return decode_image(body.content, max_pixels)


def to_document(body: Body, max_bytes: int) -> Mapping[str, Any]:
    """The problem of a body: that of a JSON document, or the arrays of a NumPy ``.npz`` archive by name.

    Raises:
        FrameError: It holds neither.
        FrameTooLargeError: The archive holds more than ``max_bytes``.
    """
    if body.document is not None:
        return body.document
    try:
        with zipfile.ZipFile(io.BytesIO(body.content)) as archive:
            held = sum(entry.file_size for entry in archive.infolist())
        if held > max_bytes:
            raise FrameTooLargeError(f"body: expected at most {max_bytes} bytes of arrays, got {held}")
        with np.load(io.BytesIO(body.content), allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as exc:
        raise FrameError(
            f'body: this plugin takes {{"problem": {{…}}}} as JSON or an .npz archive as {TENSOR_TYPE}: {exc}'
        ) from exc


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


async def _from_form(request: Request) -> Body:
    try:
        async with request.form(max_files=1, max_fields=16) as form:
            return await _read_form(form)
    except HTTPException as exc:
        raise FrameError(f"body: not a usable form: {exc.detail}") from exc


async def _read_form(form: FormData) -> Body:
    upload = form.get("frame")
    if not isinstance(upload, UploadFile):
        raise FrameError(f"body: expected a file in the form field 'frame', got fields {sorted(form)}")
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    shape, dtype = fields.pop("shape", None), fields.pop("dtype", None)
    content = await upload.read()
    if not content:
        raise FrameError("body: expected a frame in the form field 'frame', got an empty file")
    return Body(content, TENSOR_TYPE, shape, dtype, fields)


def _from_json(content: bytes) -> Body:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise FrameError(f"body: not valid JSON: {exc}") from exc
    if isinstance(document, dict) and isinstance(document.get("problem"), dict):
        return Body(b"", "application/json", None, None, _budget(document, "problem"), document["problem"])
    if not isinstance(document, dict) or not isinstance(document.get("frame"), dict):
        raise FrameError(
            'body: expected {"frame": {"base64": "…"}}, {"frame": {"base64", "shape", "dtype"}} '
            'or {"problem": {…}}'
        )
    frame, budget = document["frame"], _budget(document, "frame")
    if not set(frame) <= {"base64", "shape", "dtype"}:
        raise FrameError(f"frame: expected the keys base64, shape and dtype, got {sorted(frame)}")
    raw = _from_base64(frame.get("base64"))
    shape, dtype = frame.get("shape"), frame.get("dtype")
    if shape is None:
        return Body(raw, TENSOR_TYPE, None, dtype, budget)
    if not isinstance(shape, list):
        raise ShapeError(f"frame.shape: expected a list of integers, got {shape!r}")
    return Body(raw, TENSOR_TYPE, ",".join(map(str, shape)), dtype, budget)


def _budget(document: Mapping[str, Any], content: str) -> dict[str, Any]:
    budget = document.get("budget", {})
    if not set(document) <= {content, "budget"} or not isinstance(budget, dict):
        raise FrameError(
            f"body: expected the keys {content} and budget, both objects, got {sorted(document)}"
        )
    return budget


def _from_base64(text: object) -> bytes:
    if not isinstance(text, str) or not text:
        raise FrameError(f"frame.base64: expected a string that is not empty, got {text!r}")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise FrameError(f"frame.base64: expected base64 without line breaks: {exc}") from exc


def _tensor(body: Body, max_pixels: int) -> NDArray[np.generic]:
    if body.shape is None or body.dtype is None:
        raise ShapeError(
            f"tensor: expected a shape and a dtype ({SHAPE_HEADER}, {DTYPE_HEADER}), got one of them"
        )
    parts = [part.strip() for part in body.shape.split(",")]
    is_shape = all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts)
    if not is_shape or len(parts) > MAX_DIMENSIONS:
        raise ShapeError(
            f"{SHAPE_HEADER}: expected up to {MAX_DIMENSIONS} numbers such as 480,640,3, got {body.shape!r}"
        )
    if body.dtype not in TENSOR_DTYPES:
        raise ShapeError(f"{DTYPE_HEADER}: expected one of {', '.join(TENSOR_DTYPES)}, got {body.dtype!r}")
    shape, dtype = tuple(int(part) for part in parts), np.dtype(body.dtype)
    if math.prod(shape) > 4 * max_pixels:
        raise FrameTooLargeError(f"tensor: expected at most {max_pixels} pixels, got shape {list(shape)}")
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(body.content):
        raise ShapeError(
            f"tensor: shape {list(shape)} of {dtype} needs {expected} bytes, the body has {len(body.content)}"
        )
    return np.frombuffer(body.content, dtype).reshape(shape)
