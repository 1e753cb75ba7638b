"""What the tests of the HTTP service send: frames, forms, and things that only look like them."""

from __future__ import annotations

import io
import socket
import struct
import zlib

import numpy as np
from PIL import Image

TENSOR = "application/octet-stream"


def tensor_headers(array):
    return {
        "Content-Type": TENSOR,
        "Sage-Tensor-Shape": ",".join(map(str, array.shape)),
        "Sage-Tensor-Dtype": str(array.dtype),
    }


def post_vector(client, values=(4.0,) * 6, **kwargs):
    array = np.asarray(values, np.float32)
    headers = tensor_headers(array) | kwargs.pop("headers", {})
    return client.post("/v1/refine/quadratic", content=array.tobytes(), headers=headers, **kwargs)


def as_image(frame, kind):
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, kind)
    return buffer.getvalue()


def png_claiming(width, height):
    """A PNG of a few dozen bytes whose header claims a size."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


def form(*parts):
    """A multipart body with the boundary ``x``, of (disposition, content) pairs."""
    written = [b"--x\r\nContent-Disposition: form-data" + head + b"\r\n\r\n" + body for head, body in parts]
    return b"\r\n".join([*written, b"--x--\r\n"])


def connect(service):
    return socket.create_connection(("127.0.0.1", service.port), timeout=10)


def read_to_end(connection):
    received = b""
    while block := connection.recv(1 << 16):
        received += block
    return received
