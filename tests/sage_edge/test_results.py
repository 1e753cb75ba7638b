"""An answer as a picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from sage_edge import Answer
from sage_edge.results import picture_of

SIZES = st.tuples(st.integers(1, 8), st.integers(1, 8))


@given(SIZES.flatmap(lambda size: arrays(np.uint8, st.sampled_from([size, (*size, 3)]))))
def test_a_picture_keeps_every_pixel(array):
    image = Image.open(io.BytesIO(picture_of(Answer(array))))
    assert image.mode == ("L" if array.ndim == 2 else "RGB")
    np.testing.assert_array_equal(np.asarray(image), array)


def test_a_mask_is_indexed_by_its_palette():
    mask = np.array([[0, 1]], np.uint8)
    image = Image.open(io.BytesIO(picture_of(Answer(mask, ("a", "b"), ((0, 0, 0), (9, 8, 7))))))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), mask)
    assert image.convert("RGB").getpixel((1, 0)) == (9, 8, 7)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2), np.float32),
        np.zeros((2, 2), np.int8),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((2, 2, 1), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 2), np.uint8),
        np.zeros((), np.uint8),
    ],
)
def test_other_arrays_are_no_picture(array):
    assert picture_of(Answer(array)) is None
