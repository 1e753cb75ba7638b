"""Where a frame would stop by each signal, and what that is held against."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.vision.signals import at_fixed, first_below, oracle, picked, stops_at_mean

pytestmark = pytest.mark.training

signals = arrays(np.float64, (5, 6), elements=st.floats(0, 1))


def some_confusions(frames, states, seed):
    return np.random.default_rng(seed).integers(0, 9, (frames, states, 2, 2))


@given(signals, st.floats(0, 1))
def test_a_frame_stops_after_the_first_step_that_is_low_enough(signal, level):
    stops = first_below(signal, level)
    for row, stop in zip(signal.tolist(), stops, strict=True):
        assert stop == next((k for k in range(1, 6) if row[k] <= level), 5)


@given(signals, st.floats(1, 5))
def test_no_threshold_comes_nearer_to_the_mean(signal, mean_steps):
    gap = abs(stops_at_mean(signal, mean_steps).mean() - mean_steps)
    assert gap <= min(abs(first_below(signal, level).mean() - mean_steps) for level in signal.ravel())


def test_a_signal_that_is_not_there_yet_stops_nobody():
    signal = np.array([[np.inf, np.inf, 0.1, 0.1], [np.inf, np.inf, 0.3, 0.2]])
    assert first_below(signal, 0.15).tolist() == [2, 3]


@given(st.integers(0, 100))
def test_fixed_steps_between_two_whole_ones_are_what_a_draw_of_them_gives(seed):
    confusions = some_confusions(4, 3, seed)
    np.testing.assert_allclose(at_fixed(confusions, 1.0), confusions[:, 1])
    np.testing.assert_allclose(at_fixed(confusions, 2.0), confusions[:, 2])
    np.testing.assert_allclose(at_fixed(confusions, 1.25), 0.75 * confusions[:, 1] + 0.25 * confusions[:, 2])


def wrong_pixels(confusions, stops):
    chosen = picked(confusions, np.array(stops))
    return int(chosen.sum() - np.trace(chosen, axis1=1, axis2=2).sum())


@given(st.integers(0, 300))
def test_the_oracle_is_as_good_as_any_stops_that_cost_as_much_when_gains_only_shrink(seed):
    rng = np.random.default_rng(seed)
    wrong = 50 - np.sort(rng.integers(0, 9, (3, 3)), axis=1)[:, ::-1].cumsum(axis=1)
    wrong = np.column_stack([np.full(3, 50), wrong])  # states 0 .. 3
    confusions = np.zeros((3, 4, 2, 2), np.int64)
    confusions[..., 0, 1], confusions[..., 0, 0] = wrong, 100 - wrong
    stops = oracle(confusions, mean_steps=2.0)
    assert stops.sum() == 6
    best = min(wrong_pixels(confusions, s) for s in itertools.product((1, 2, 3), repeat=3) if sum(s) == 6)
    assert wrong_pixels(confusions, stops) == best
