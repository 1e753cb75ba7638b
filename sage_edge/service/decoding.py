"""From the encoded frame of a body to an array, or to a document."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.errors import FrameError, FrameTooLargeError, ShapeError
from sage_edge.frames import decode_image
from sage_edge.service.bodies import DTYPE_HEADER, SHAPE_HEADER, TENSOR_DTYPES, TENSOR_TYPE, Body
from sage_edge.service.context import Context

MAX_DIMENSIONS = 8


def prepare(context: Context, plugin: str, body: Body) -> Any:
    """Decode a body and make it what the plugin's slots load.

    Raises:
        UnknownPluginError: No such plugin.
        InputError: The plugin cannot use it.
    """
    settings = context.settings
    if context.hrm.require(plugin).takes == "document":
        return context.hrm.prepare(plugin, to_document(body, settings.max_body_bytes))
    return context.hrm.prepare(plugin, to_frame(body, settings.max_frame_pixels))


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
    if body.shape is not None or body.dtype is not None:
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
