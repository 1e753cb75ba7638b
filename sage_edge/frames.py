"""Images: bytes to frames, masks to bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sage_edge.errors import FrameError, FrameTooLargeError

_FORMATS = ("JPEG", "PNG", "WEBP")
Palette = Sequence[tuple[int, int, int]]


def decode_image(content: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or WebP image.

    Orientation tags are not applied, so that a mask lies on the pixels as they were sent; of an
    animation the first picture is taken, of 16-bit grey the upper 8 bits; transparency is dropped.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        FrameError: The bytes are no such image, or a broken one.
        FrameTooLargeError: It has more than ``max_pixels`` pixels; nothing of it was decoded.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise FrameTooLargeError(
                    f"frame: expected at most {max_pixels} pixels, got {width} x {height}"
                )
            return np.asarray(_eight_bit(image).convert("RGB"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise FrameTooLargeError(f"frame: expected at most {max_pixels} pixels, got far more") from exc
    except FrameTooLargeError:
        raise
    except UnidentifiedImageError as exc:
        raise FrameError(
            f"frame: expected a JPEG, PNG or WebP image, got {len(content)} bytes of no such kind"
        ) from exc
    except Exception as exc:  # a decoder meets broken bytes with whatever error they lead it to
        raise FrameError(f"frame: the image is broken: {exc}") from exc


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
