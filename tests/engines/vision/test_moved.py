"""The second frame of a stream: the first one moved, under noise."""

from __future__ import annotations

import numpy as np
import pytest

from engines.vision.data import VOID
from engines.vision.streams import NOISE_LEVELS, moved


@pytest.mark.parametrize("shift_px", [0, 1, 5])
def test_the_scene_and_its_labels_move_together(shift_px):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (40, 60), np.uint8)
    frame = np.repeat((60 * labels + 20)[..., None], 3, axis=2)
    noisy, known = moved(frame, labels, shift_px, rng)
    counts = known != VOID
    assert counts.sum() == 40 * (60 - shift_px)
    np.testing.assert_array_equal(known[:, shift_px:], labels[:, : 60 - shift_px])
    off = noisy.astype(float)[counts] - (60.0 * known[counts] + 20)[:, None]
    assert abs(off.mean()) < 0.1
    assert off.std() == pytest.approx(NOISE_LEVELS, rel=0.05)
