"""Performance profiles: from a prior to what was seen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.orchestrator.profile import LARGEST_SCALE, Profile


def test_an_unseen_plugin_is_expected_to_gain_less_at_each_step():
    falls = Profile(8).falls([], 8)
    assert len(falls) == 8
    assert all(a > b > 0 for a, b in itertools.pairwise(falls))


def test_many_runs_outweigh_the_prior():
    profile = Profile(4)
    for _ in range(4000):
        profile.learn([1.0, 0.6, 0.5, 0.5], converged=False)
    assert profile.falls([], 3) == pytest.approx([0.4, 0.1, 0.0], abs=1e-3)


def test_a_run_that_converged_had_no_more_to_give_and_one_that_was_stopped_might_have():
    converged, stopped = Profile(4), Profile(4)
    for _ in range(100):
        converged.learn([1.0, 0.5], converged=True)
        stopped.learn([1.0, 0.5], converged=False)
    assert converged.falls([], 4)[1] < 0.01
    assert stopped.falls([], 4)[1] == Profile(4).falls([], 4)[1]


def test_a_run_that_gains_twice_as_much_is_expected_to_go_on_doing_so():
    profile = Profile(4)
    for _ in range(1000):
        profile.learn([1.0, 0.9, 0.81, 0.73], converged=False)
    typical = profile.falls([1.0, 0.9, 0.81], 1)
    better = profile.falls([1.0, 0.7, 0.49], 1)
    assert 1.5 < better[0] / typical[0] < 3


@given(
    st.lists(st.floats(-5, 5), min_size=0, max_size=6),
    st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=6), max_size=20),
)
def test_expected_falls_are_finite_bounded_and_not_negative(energies, runs):
    profile = Profile(6)
    for run in runs:
        profile.learn(np.minimum.accumulate(run).tolist(), converged=False)
    best = np.minimum.accumulate(energies).tolist() if energies else []
    unscaled = [profile.falls([], 6)[k] for k in range(6)]
    for k, fall in enumerate(profile.falls(best, 6), max(len(best) - 1, 0)):
        assert 0 <= fall <= LARGEST_SCALE * unscaled[k] + 1e-9


def test_prices_follow_what_is_charged():
    profile = Profile(4)
    profile.charge(500.0, is_start=True)
    for _ in range(200):
        profile.charge(100.0, is_start=False)
    for _ in range(200):
        profile.charge(300.0, is_start=False)
    assert profile.start_uatp == 500.0
    assert profile.step_uatp == pytest.approx(300.0, rel=0.01)
