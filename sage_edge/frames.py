"""Images: bytes to frames, masks to bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from sage_edge.errors import FrameError, FrameTooLargeError, MemoryFullError

_PNG = b"\x89PNG\r\n\x1a\n"
#: The JPEG pixels that libjpeg itself makes RGB of.
_COLOURS = ("L", "RGB")
#: libjpeg's words for a file that ends early.
_CUT_OFF = "Premature end of JPEG file"
#: Side of the tiles in which a decoded image is made a frame.
_TILE_PX = 512
Palette = Sequence[tuple[int, int, int]]


def decode_image(
    content: bytes,
    max_pixels: int,
    note: Callable[[str], object] = lambda _: None,
    reserve: Callable[[int], object] = lambda _: None,
) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or WebP image.

    Orientation tags are not applied, so that a mask lies on the pixels as they were sent; of an
    animation the first picture is taken, of 16-bit grey the upper 8 bits; transparency is dropped.

    Args:
        content: The bytes.
        max_pixels: Largest width x height.
        note: Told the damage of an image that can be decoded nonetheless: a JPEG with a hole in its data.
        reserve: Called with the bytes that decoding takes, before it does; raises where there is no room.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        FrameError: The bytes are no such image, or a broken one.
        FrameTooLargeError: It has more than ``max_pixels`` pixels; nothing of it was decoded.
    """
    try:
        with _open(content) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise FrameTooLargeError(
                    f"frame: expected at most {max_pixels} pixels, got {width} x {height}"
                )
            reserve(int(width * height * _pixel_bytes(image, content)))
            if image.format == "JPEG" and image.mode in _COLOURS:
                return _decode_jpeg(content, note)
            return _in_tiles(image)
    except (FrameTooLargeError, FrameError, MemoryFullError):
        raise
    except Exception as exc:  # a decoder meets broken bytes with whatever error they lead it to
        raise FrameError(f"frame: the image is broken: {exc}") from exc


def _open(content: bytes) -> ImageFile.ImageFile:
    """An image of a known kind, of which nothing is decoded yet.

    The kind's own class is asked, since ``Image.open`` calls a broken file one of no kind.
    """
    if content.startswith(_PNG):
        return PngImagePlugin.PngImageFile(io.BytesIO(_critical_chunks(content)))
    if content.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile(io.BytesIO(content))
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile(io.BytesIO(content))
    raise FrameError(f"frame: expected a JPEG, PNG or WebP image, got {len(content)} bytes of no such kind")


def _critical_chunks(content: bytes) -> bytes:
    """A PNG without what its pixels do not need, such as texts: broken ones do no harm then."""
    kept, start = [_PNG], len(_PNG)
    while start + 8 <= len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        if not content[start + 4] & 0x20:  # a capital letter
            kept.append(content[start:end])
        start = end
    return b"".join([*kept, content[start:]])


def _decode_jpeg(content: bytes, note: Callable[[str], object]) -> NDArray[np.uint8]:
    """The pixels of a JPEG, and a note of what libjpeg warns of, which Pillow keeps to itself."""
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, "RGB")
    except ValueError as exc:
        if str(exc) == _CUT_OFF:
            raise
        pixels = simplejpeg.decode_jpeg(content, "RGB", strict=False)
        note(str(exc))
    return pixels


def _in_tiles(image: Image.Image) -> NDArray[np.uint8]:
    """A decoded image as uint8 [H, W, 3] in RGB, with no second copy of it in between."""
    width, height = image.size
    frame = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _TILE_PX):
        for left in range(0, width, _TILE_PX):
            tile = image.crop((left, top, min(left + _TILE_PX, width), min(top + _TILE_PX, height)))
            frame[top : top + _TILE_PX, left : left + _TILE_PX] = np.asarray(_eight_bit(tile).convert("RGB"))
    return frame


def _pixel_bytes(image: Image.Image, content: bytes) -> float:
    """Bytes for each pixel that decoding takes at once: the decoder's own, Pillow's and the frame's."""
    if image.format == "JPEG" and content.count(b"\xff\xda") > 1:  # in several scans: all coefficients stay
        return 9.5 if image.mode in _COLOURS else 12.5
    return 16.5 if image.format == "WEBP" else 7.5


def _eight_bit(image: Image.Image) -> Image.Image:
    """The upper eight bits of sixteen-bit grey, which ``convert`` would clip to white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def mask_png(mask: NDArray[np.generic], palette: Palette) -> bytes:
    """An indexed PNG: the pixel values are the class numbers, the palette gives their colours.

    Args:
        mask: uint8 [H, W] of class numbers.
        palette: One colour for each class.
    """
    image = Image.fromarray(mask)
    image.putpalette([channel for colour in palette for channel in colour])
    return _png(image)


def picture_png(picture: NDArray[np.generic]) -> bytes:
    """A grey or an RGB PNG.

    Args:
        picture: uint8 [H, W] or [H, W, 3], not empty.
    """
    return _png(Image.fromarray(picture))


def overlay_png(frame: NDArray[np.uint8], mask: NDArray[np.generic], palette: Palette) -> bytes:
    """The frame with the colours of its mask laid over it by half; class 0 stays clear.

    Args:
        frame: uint8 [H, W, 3].
        mask: uint8 [H, W] of class numbers.
        palette: One colour for each class.
    """
    colours = np.asarray(palette, np.float32)[mask]
    weight = np.where(mask == 0, 0.0, 0.5).astype(np.float32)[..., None]
    return _png(Image.fromarray((frame * (1 - weight) + colours * weight).astype(np.uint8)))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
