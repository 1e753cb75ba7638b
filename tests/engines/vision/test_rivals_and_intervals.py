from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engines.vision.bootstrap import by_block, miou_interval
from engines.vision.corrupt import Corruption, corrupt, corrupt_all
from engines.vision.otsu import otsu_segment, otsu_threshold
from sage_edge.quality import confusion, mean_iou
from tests.engines.vision.frames import nuclei_frames

pytestmark = pytest.mark.training


def within_variance(values, level):
    """Otsu's other form: what is left of the variance on either side of a level."""
    sides = [values[values <= level], values[values > level]]
    return sum(side.size * side.var() for side in sides if side.size)


@given(arrays(np.uint8, (6, 6), elements=st.integers(0, 255)))
def test_otsus_level_leaves_the_least_variance_within_the_sides(values):
    flat = values.ravel().astype(np.float64)
    least = min(within_variance(flat, level) for level in range(256))
    assert within_variance(flat, otsu_threshold(values)) == pytest.approx(least, abs=1e-6)


def test_otsu_finds_nuclei_whether_bright_or_dark():
    frames, labels = nuclei_frames(1, seed=2)
    bright = confusion(labels[0], otsu_segment(frames[0]), 3)
    dark = confusion(labels[0], otsu_segment(255 - frames[0]), 3)
    assert mean_iou(bright) > 0.9
    assert mean_iou(dark) > 0.9


def test_the_interval_of_frames_that_are_all_alike_is_a_point():
    alike = np.repeat([[[6, 2], [1, 7]]], 5, axis=0)
    assert miou_interval(alike) == pytest.approx((mean_iou(alike[0]),) * 2)


def test_a_method_leads_itself_by_nothing():
    counts = np.random.default_rng(0).integers(0, 9, (12, 3, 3))
    assert miou_interval(counts, counts) == (0.0, 0.0)


def test_the_interval_holds_the_measured_lead():
    rng = np.random.default_rng(1)
    better, worse = (rng.integers(0, 5, (30, 2, 2)) + np.diag([hits, hits]) for hits in (20, 10))
    low, high = miou_interval(better, worse)
    assert 0 < low < mean_iou(better.sum(axis=0)) - mean_iou(worse.sum(axis=0)) < high


def test_a_seed_spoils_frames_the_same_way_again_and_another_differently():
    frames = nuclei_frames(2, seed=0, size_px=64)[0]
    np.testing.assert_array_equal(corrupt_all(frames, 7), corrupt_all(frames, 7))
    assert (corrupt_all(frames, 7) != corrupt_all(frames, 8)).any()


def test_half_the_exposure_is_half_as_bright():
    frame = np.full((64, 64, 3), 200, np.uint8)
    dim = corrupt(frame, Corruption(exposure=0.5, photons=1e4, blur_px=0.0), np.random.default_rng(0))
    assert dim.mean() == pytest.approx(100, abs=0.2)  # shot noise of 12288 samples at deviation 0.9


def test_fewer_photons_make_more_noise():
    frame = np.full((64, 64, 3), 100, np.uint8)
    many, few = (
        corrupt(frame, Corruption(1.0, photons, 0.0), np.random.default_rng(0)).std()
        for photons in (1e4, 100)
    )
    assert few == pytest.approx(10 * many, rel=0.1)  # deviation goes with 1 / sqrt(photons)


def test_seeds_that_are_all_alike_are_as_good_as_one():
    one, other = (np.random.default_rng(seed).integers(0, 9, (12, 3, 3)) for seed in (0, 1))
    of_three = miou_interval(np.stack(3 * [one]), np.stack(3 * [other]))
    assert of_three == pytest.approx(miou_interval(one, other))


def test_the_interval_of_seeds_is_that_of_their_mean():
    good, bad = np.diag([9, 9]), np.array([[4, 5], [5, 4]])
    frames = [np.repeat(counts[None], 6, axis=0) for counts in (good, bad)]
    mean = (mean_iou(good) + mean_iou(bad)) / 2
    assert miou_interval(np.stack(frames)) == pytest.approx((mean, mean))


def test_a_block_sums_the_confusions_of_its_frames():
    counts = np.random.default_rng(0).integers(0, 9, (5, 3, 3))
    summed = by_block(counts, ["b", "a", "b", "c", "a"])
    np.testing.assert_array_equal(summed, [counts[1] + counts[4], counts[0] + counts[2], counts[3]])
