"""Images in and out."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sage_edge import frames
from sage_edge.errors import FrameError, FrameTooLargeError, MemoryFullError
from sage_edge.frames import decode_image, mask_png, overlay_png

TILE = frames._TILE_PX
PALETTE = ((0, 0, 0), (255, 0, 0), (0, 255, 0))


def encoded(array, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def png_claiming(width, height):
    """A PNG whose header claims a size that its few bytes do not hold."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8)


def test_lossless_images_come_back_exactly(picture):
    np.testing.assert_array_equal(decode_image(encoded(picture, "PNG"), 1000), picture)
    np.testing.assert_array_equal(decode_image(encoded(picture, "WEBP", lossless=True), 1000), picture)


def test_a_jpeg_comes_back_nearly():
    smooth = np.broadcast_to(np.arange(0, 200, 4, dtype=np.uint8)[:, None, None], (50, 40, 3)).copy()
    difference = decode_image(encoded(smooth, "JPEG", quality=95), 10_000).astype(int) - smooth
    assert abs(difference).max() <= 6


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_other_pixel_formats_become_rgb(mode, picture):
    image = Image.fromarray(picture)
    image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    assert decode_image(buffer.getvalue(), 1000).shape == (17, 23, 3)


def test_a_huge_claim_is_refused_before_anything_is_decoded():
    for size in ((60000, 60000), (12000, 9000), (40, 26)):
        with pytest.raises(FrameTooLargeError, match="1000 pixels"):
            decode_image(png_claiming(*size), 1000)


@pytest.mark.parametrize("content", [b"not an image", b"", b"GIF89a" + b"\0" * 40, png_claiming(20, 20)])
def test_what_is_no_image_is_refused(content):
    with pytest.raises(FrameError) as caught:
        decode_image(content, 1000)
    assert "0x" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.integers(0, 10_000), st.integers(0, 255), st.booleans())
def test_damaged_images_decode_or_are_refused_and_nothing_else(kind, place, value, cut):
    content = bytearray(encoded(np.full((40, 40, 3), 90, np.uint8), kind))
    content[place % len(content)] = value
    damaged = bytes(content[: place % len(content)] if cut else content)
    with contextlib.suppress(FrameError, FrameTooLargeError):
        assert decode_image(damaged, 10_000).ndim == 3


#: How cameras and programs write a JPEG.
WAYS = (
    {"quality": 5},
    {"quality": 95, "subsampling": 0},
    {"quality": 75, "subsampling": 1},
    {"quality": 75, "progressive": True},
    {"quality": 85, "optimize": True},
    {"quality": 75, "restart_marker_blocks": 3},
    {"quality": 75, "restart_marker_rows": 1, "progressive": True},
)


def pixels_and_damage(content):
    damage = []
    return decode_image(content, 1 << 22, damage.append), damage


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_whole_jpeg_is_decoded_as_pillow_does_and_never_called_damaged(way, mode, nuclei_frame):
    picture = Image.fromarray(nuclei_frame).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **way)
    pixels, damage = pixels_and_damage(buffer.getvalue())
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(buffer).convert("RGB")))
    assert damage == []


def test_real_pictures_are_never_called_damaged(data_folder):
    files = sorted(data_folder.rglob("*.png"))
    for number, file in enumerate(files[:: max(1, len(files) // 70)]):
        buffer = io.BytesIO()
        Image.open(file).convert("RGB").save(buffer, "JPEG", **WAYS[number % len(WAYS)])
        assert pixels_and_damage(buffer.getvalue())[1] == [], file


@pytest.mark.parametrize("padding", [b"\0" * 100, b"\xff\xff", b"not of the picture"])
def test_bytes_behind_a_jpeg_do_no_harm(padding, nuclei_frame):
    assert pixels_and_damage(encoded(nuclei_frame, "JPEG") + padding)[1] == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss", ["end", "hole", "zeros"])
def test_a_jpeg_that_has_lost_a_third_of_its_data_is_called_damaged_or_refused(way, loss, nuclei_frame):
    whole = encoded(nuclei_frame, "JPEG", **way)
    first, last = len(whole) // 3, 2 * len(whole) // 3
    kept = {
        "end": whole[:last] + b"\xff\xd9",
        "hole": whole[:first] + whole[last:],
        "zeros": whole[:first] + bytes(last - first) + whole[last:],
    }
    try:
        pixels, damage = pixels_and_damage(kept[loss])
    except FrameError:
        assert way.get("progressive")  # whose scans have headers, which were lost
    else:
        assert pixels.shape == nuclei_frame.shape
        assert len(damage) == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_that_ends_early_is_refused(kind, nuclei_frame):
    with pytest.raises(FrameError, match="the image is broken"):
        decode_image(encoded(nuclei_frame, kind)[:-1000], 1 << 22)


def with_chunk(png, chunk):
    """A PNG with something behind its header."""
    return png[:33] + chunk + png[33:]


def test_a_png_is_read_whatever_its_texts_are(picture):
    png = encoded(picture, "PNG")
    wrong = struct.pack(">I", 5) + b"tEXt" + b"a\0bcd" + b"sum?"
    bomb = zlib.compress(bytes(1 << 24))
    large = struct.pack(">I", len(bomb) + 3) + b"zTXt" + b"a\0\0" + bomb
    large += struct.pack(">I", zlib.crc32(large[4:]))
    for chunk in (wrong, large):
        np.testing.assert_array_equal(decode_image(with_chunk(png, chunk), 1000), picture)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (lambda png: png[:29] + b"sum?" + png[33:], "checksum in b'IHDR'"),
        (lambda png: png[:20], "the image is broken"),
        (lambda png: png[:8], "the image is broken"),
    ],
)
def test_a_png_that_cannot_be_read_is_not_called_no_png(content, cause, picture):
    with pytest.raises(FrameError, match=cause) as caught:
        decode_image(content(encoded(picture, "PNG")), 1000)
    assert "no such kind" not in str(caught.value)


def test_a_mask_png_holds_the_class_numbers_and_the_colours():
    mask = np.random.default_rng(1).integers(0, 3, (9, 11), np.uint8)
    image = Image.open(io.BytesIO(mask_png(mask, PALETTE)))
    np.testing.assert_array_equal(np.asarray(image), mask)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(PALETTE, np.uint8)[mask])


def test_an_overlay_leaves_the_background_and_tints_the_rest():
    frame = np.full((2, 2, 3), 100, np.uint8)
    mask = np.array([[0, 1], [2, 0]], np.uint8)
    shown = np.asarray(Image.open(io.BytesIO(overlay_png(frame, mask, PALETTE))))
    assert shown.tolist() == [[[100] * 3, [177, 50, 50]], [[50, 177, 50], [100] * 3]]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("size", [(TILE + 3, 7), (5, TILE + 1), (3 * TILE, 2)])
def test_a_picture_larger_than_a_tile_is_what_pillow_makes_of_it_at_once(mode, size):
    """The oracle is Pillow's own conversion of the whole."""
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(pixels)
    image = Image.fromarray(pixels[..., 0] * np.uint16(256)) if mode == "I;16" else image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    with Image.open(buffer) as again:
        expected = pixels[..., :1].repeat(3, 2) if mode == "I;16" else np.asarray(again.convert("RGB"))
    decoded = decode_image(buffer.getvalue(), 1 << 20)
    np.testing.assert_array_equal(
        decoded[:, :, :], pixels[..., :1].repeat(3, 2) if mode == "I;16" else expected
    )


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {})]
)
def test_room_is_asked_for_before_anything_is_decoded_and_its_refusal_is_told(kind, options, picture):
    asked = []

    def refuse(size):
        asked.append(size)
        raise MemoryFullError("no room")

    with pytest.raises(MemoryFullError, match="no room"):
        decode_image(encoded(picture, kind, **options), 1000, reserve=refuse)
    assert asked[0] >= 7 * 17 * 23
