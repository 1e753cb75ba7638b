"""The kinds of input that plugins take: how a frame, a document or a text is read, whatever way it came."""

from __future__ import annotations

import base64
import io
import math
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import orjson
from numpy.typing import NDArray

from sage_edge.errors import FrameError, FrameTooLargeError, InputError, MemoryFullError, ShapeError
from sage_edge.frames import decode_image
from sage_edge.messages import named, shown

JSON_TYPE = "application/json"
#: Bytes of no kind that HTTP knows: a raw tensor, a NumPy file.
OCTETS_TYPE = "application/octet-stream"
TENSOR_DTYPES = ("uint8", "float16", "float32")
MAX_DIMENSIONS = 8
#: What a JSON document may hold, since nothing else runs while it is read: so many texts, lists and objects;
#: so many values.
MOST_JSON_PARTS = 1 << 17
MOST_JSON_VALUES = 3 << 20
#: Characters that are decoded from base64 at a time.
_PIECE = 1 << 20
#: What ``prepare`` may take for a moment, in sizes of a tensor.
_PREPARED = 3
#: Bytes that a byte of text may take: one character that is not Latin widens all of them; and the copy that
#: is looked at.
_WIDEST = 5
#: Bytes that an entry of an archive takes beside its array.
_ENTRY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an input may hold.

    Attributes:
        max_pixels: Of a frame, width x height.
        max_bytes: Of what an archive unpacks to.
        note: Told what of an input is damaged that can be used nonetheless.
        reserve: Called with the bytes that are about to be taken beside those that came; raises where there
            is no room for them.
    """

    max_pixels: int
    max_bytes: int
    note: Callable[[str], object] = lambda _: None
    reserve: Callable[[int], object] = lambda _: None


@dataclass(frozen=True, slots=True)
class Part:
    """An input as bytes: a request's body, a part of a form, or a file.

    Attributes:
        content: The bytes; a kind is given at least one.
        media_type: Without parameters, in lower case; empty where none was named.
        shape: Of a raw tensor, such as ``480,640,3``; None where none was named.
        dtype: Of a raw tensor, such as ``uint8``; from JSON it may be any value.
    """

    content: bytes
    media_type: str = ""
    shape: str | None = None
    dtype: Any = None


class InputKind(ABC):
    """One kind of input. A plugin names the kind that it takes in ``takes``, and no other place knows it.

    A plugin whose input is of none of the kinds below subclasses this one. Errors begin with ``key`` and say
    what was expected and what came.

    Attributes:
        name: What an input of this kind is called.
        key: Under which it stands in a JSON body, and the name of its field in a form.
        suffixes: Of the files that hold one, in lower case with the dot, and the media type of each.
        schema: JSON Schema (draft 2020-12) of what stands under ``key``.
        example: A value that is valid under ``schema``.
    """

    name: ClassVar[str]
    key: ClassVar[str]
    suffixes: ClassVar[Mapping[str, str]]
    schema: ClassVar[Mapping[str, Any]]
    example: ClassVar[Any]

    @property
    def media_types(self) -> tuple[str, ...]:
        """The types of a body that is nothing but an input of this kind."""
        return tuple(dict.fromkeys(self.suffixes.values()))

    @abstractmethod
    def from_part(self, part: Part, limits: Limits) -> Any:
        """What the plugin's ``prepare`` is given, from bytes; those of an unnamed type are looked at.

        Raises:
            InputError: The bytes are no input of this kind, or hold more than the limits allow.
        """

    @abstractmethod
    def from_json(self, value: Any, limits: Limits) -> Any:
        """What the plugin's ``prepare`` is given, from what stands under ``key`` in a JSON body.

        Raises:
            InputError: The value is no input of this kind, or holds more than the limits allow.
        """


class FrameKind(InputKind):
    """An image or a tensor.

    ``prepare`` is given uint8 [H, W, 3] in RGB for an image, and the array as it was sent for a tensor.
    """

    name = "frame"
    key = "frame"
    suffixes: ClassVar[Mapping[str, str]] = {
        ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg",
        ".png": "image/png",
        ".webp": "image/webp",
        ".npy": OCTETS_TYPE,
    }
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["base64"],
        "properties": {
            "base64": {
                "type": "string",
                "minLength": 1,
                "description": "an image's bytes, or with shape and dtype a raw tensor's",
            },
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            "dtype": {"type": "string", "enum": list(TENSOR_DTYPES)},
        },
    }
    example: ClassVar[Any] = {"base64": "/9j/4AAQSkZJRgABAQ=="}

    def from_part(self, part: Part, limits: Limits) -> NDArray[np.generic]:
        """The frame of an image's bytes, of a raw tensor's, or of a NumPy ``.npy`` file.

        Raises:
            FrameError: The bytes are no image that can be decoded.
            ShapeError: A tensor's shape and dtype do not fit its length.
            FrameTooLargeError: It has more than ``limits.max_pixels`` pixels.
        """
        if part.shape is not None or part.dtype is not None:
            return _tensor(part, limits)
        if part.content.startswith(b"\x93NUMPY"):
            return _numpy_array(part.content, limits)
        return decode_image(part.content, limits.max_pixels, limits.note, limits.reserve)

    def from_json(self, value: Any, limits: Limits) -> NDArray[np.generic]:
        """The frame of ``{"base64": "…"}``, which has ``shape`` and ``dtype`` beside it for a raw tensor.

        Raises:
            InputError: As ``from_part``; or the object or its base64 is none.
        """
        if not isinstance(value, dict):
            raise FrameError(f'frame: expected {{"base64": "…"}}, got {shown(value)}')
        if not set(value) <= {"base64", "shape", "dtype"}:
            raise FrameError(f"frame: expected the keys base64, shape and dtype, got {named(value)}")
        content = _from_base64(value.get("base64"))
        return self.from_part(
            Part(content, shape=written_shape(value.get("shape")), dtype=value.get("dtype")), limits
        )


class DocumentKind(InputKind):
    """A problem: a JSON object, or named arrays in a NumPy ``.npz`` archive.

    ``prepare`` is given a mapping of named values.
    """

    name = "document"
    key = "problem"
    suffixes: ClassVar[Mapping[str, str]] = {".json": JSON_TYPE, ".npz": OCTETS_TYPE}
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "description": "its names are the plugin's own: those of control are in docs/CONTROL.md",
    }
    example: ClassVar[Any] = {
        "kind": "qp",
        "P": [[2.0, 0.0], [0.0, 2.0]],
        "q": [-2.0, -5.0],
        "lb": [0.0, 0.0],
    }

    def from_part(self, part: Part, limits: Limits) -> Mapping[str, Any]:
        """The problem of a JSON object, or of an archive.

        Raises:
            FrameError: The bytes are neither.
            FrameTooLargeError: The archive holds more than ``limits.max_bytes``.
        """
        if not part.content.startswith(b"PK"):
            return self.from_json(
                parse_json(part.content, "problem: expected JSON or an .npz archive"), limits
            )
        limits.reserve(_ENTRY_BYTES * part.content.count(b"PK\x01\x02"))
        try:
            with zipfile.ZipFile(io.BytesIO(part.content)) as archive:
                held = sum(entry.file_size for entry in archive.infolist())
            if held > limits.max_bytes:
                raise FrameTooLargeError(
                    f"problem: expected at most {limits.max_bytes} bytes of arrays, got {held}"
                )
            limits.reserve(2 * held)
            with np.load(io.BytesIO(part.content), allow_pickle=False) as arrays:
                return dict(arrays)
        except (FrameTooLargeError, MemoryFullError):
            raise
        except Exception as exc:  # NumPy meets broken bytes with whatever error they lead it to
            raise FrameError(f"problem: the .npz archive cannot be read: {exc}") from exc

    def from_json(self, value: Any, limits: Limits) -> Mapping[str, Any]:
        """The object itself.

        Raises:
            FrameError: The value is no object.
        """
        if not isinstance(value, dict):
            raise FrameError(f"problem: expected a JSON object, got {shown(value)}")
        return value


class TextKind(InputKind):
    """A text in UTF-8; ``prepare`` is given a str, never empty and without NUL characters."""

    name = "text"
    key = "text"
    suffixes: ClassVar[Mapping[str, str]] = {".txt": "text/plain", ".md": "text/markdown"}
    schema: ClassVar[Mapping[str, Any]] = {"type": "string", "minLength": 1}
    example: ClassVar[Any] = "Alice met Bob in Paris."

    def from_part(self, part: Part, limits: Limits) -> str:
        """The text of UTF-8 bytes; a byte-order mark at the beginning is dropped.

        Raises:
            FrameError: The bytes are no UTF-8, empty, or have a NUL among them.
        """
        limits.reserve(_WIDEST * len(part.content))
        try:
            return self.from_json(part.content.decode("utf-8-sig"), limits)
        except UnicodeDecodeError as exc:
            byte = part.content[exc.start]
            raise FrameError(f"text: expected UTF-8, got the byte 0x{byte:02x} at {exc.start}") from exc

    def from_json(self, value: Any, limits: Limits) -> str:
        """The string itself.

        Raises:
            FrameError: The value is no string, empty, or has a NUL or half a surrogate pair in it.
        """
        if not isinstance(value, str):
            raise FrameError(f"text: expected a string, got {shown(value)}")
        if not value:
            raise FrameError("text: expected a text that is not empty, got an empty one")
        if "\0" in value:
            raise FrameError(f"text: expected no NUL character, got one at {value.index(chr(0))}")
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise FrameError(f"text: expected Unicode, got half a surrogate pair at {exc.start}") from exc
        return value


FRAME = FrameKind()
DOCUMENT = DocumentKind()
TEXT = TextKind()


def parse_json(content: bytes | str, name: str, error: type[InputError] = FrameError) -> Any:
    """The value of a JSON text (RFC 8259): numbers that a float64 has, whole pairs of surrogates.

    Args:
        content: The text, in UTF-8 where it is bytes.
        name: What it is called in the message of an error.
        error: The class of that error.

    Raises:
        InputError: It is not valid JSON.
        FrameTooLargeError: Reading it would hold everybody up.
    """
    try:
        _check_parts(content, name)
        return orjson.loads(content)
    except orjson.JSONDecodeError as exc:
        raise error(f"{name}: not valid JSON: {exc}") from exc


def _check_parts(content: bytes | str, name: str) -> None:
    text = content.encode("utf-8", "replace") if isinstance(content, str) else content
    parts, values = text.count(b"[") + text.count(b"{") + text.count(b'"') // 2, text.count(b",") + 1
    for most, what, came in (
        (MOST_JSON_PARTS, "texts, lists and objects", parts),
        (MOST_JSON_VALUES, "values", values),
    ):
        if came > most:
            raise FrameTooLargeError(f"{name}: expected JSON of at most {most} {what}, got {came}")


def written_shape(shape: Any) -> str | None:
    """A tensor's shape in JSON, as a Part has it.

    Raises:
        ShapeError: It is no list.
    """
    if shape is None:
        return None
    if not isinstance(shape, list):
        raise ShapeError(f"frame.shape: expected a list of integers, got {shown(shape)}")
    return ",".join(map(str, shape))


def _from_base64(text: object) -> bytes:
    if not isinstance(text, str) or not text:
        raise FrameError(f"frame.base64: expected a string that is not empty, got {shown(text)}")
    pieces = (text[first : first + _PIECE] for first in range(0, len(text), _PIECE))
    try:
        if text.find("=", 0, -2) >= 0:
            raise ValueError("padding before the end")
        return b"".join(base64.b64decode(piece, validate=True) for piece in pieces)
    except ValueError as exc:
        raise FrameError(f"frame.base64: expected base64 without line breaks: {exc}") from exc


def _tensor(part: Part, limits: Limits) -> NDArray[np.generic]:
    if part.shape is None or part.dtype is None:
        raise ShapeError("tensor: expected a shape and a dtype, got one of them")
    numbers = [number.strip() for number in part.shape.split(",")]
    is_shape = all(number.isascii() and number.isdecimal() and len(number) < 10 for number in numbers)
    if not is_shape or len(numbers) > MAX_DIMENSIONS:
        raise ShapeError(
            f"tensor shape: expected up to {MAX_DIMENSIONS} numbers such as 480,640,3, "
            f"got {shown(part.shape)}"
        )
    if part.dtype not in TENSOR_DTYPES:
        raise ShapeError(f"tensor dtype: expected one of {', '.join(TENSOR_DTYPES)}, got {shown(part.dtype)}")
    shape, dtype = tuple(int(number) for number in numbers), np.dtype(part.dtype)
    _check_pixels(shape, limits.max_pixels)
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(part.content):
        raise ShapeError(
            f"tensor: shape {list(shape)} of {dtype} needs {expected} bytes, the body has {len(part.content)}"
        )
    limits.reserve(_PREPARED * len(part.content))
    return np.frombuffer(part.content, dtype).reshape(shape)


def _numpy_array(content: bytes, limits: Limits) -> NDArray[np.generic]:
    limits.reserve((1 + _PREPARED) * len(content))
    try:
        array: NDArray[np.generic] = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as exc:  # NumPy meets broken bytes with whatever error they lead it to
        raise FrameError(f"frame: the .npy file is broken: {exc}") from exc
    if array.dtype.name not in TENSOR_DTYPES:
        raise ShapeError(
            f"tensor dtype: expected one of {', '.join(TENSOR_DTYPES)}, got {array.dtype.name!r}"
        )
    _check_pixels(array.shape, limits.max_pixels)
    return array


def _check_pixels(shape: tuple[int, ...], max_pixels: int) -> None:
    if math.prod(shape) > 4 * max_pixels:
        raise FrameTooLargeError(f"tensor: expected at most {max_pixels} pixels, got shape {list(shape)}")
