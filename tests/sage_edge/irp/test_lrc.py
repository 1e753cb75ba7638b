from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.config import Settings
from sage_edge.errors import ConfigError
from sage_edge.irp.lrc import LRC, LRC_PROFILES

SHARE = st.floats(0.0, 1.0)


def test_the_edge_profile_worked_out_by_hand():
    edge = LRC_PROFILES["edge"]
    assert edge.damping == pytest.approx((0.18 + 0.56) / 1.25)
    assert edge.omega0 == pytest.approx(1 / (0.15 + 1e-6) ** 0.5)
    assert edge.threshold == pytest.approx(0.66)
    assert edge.review_days == 8  # 3 + 3 + 2.368
    assert (edge.quorum, edge.cost) == (3, 46)
    assert edge.reject_penalty == pytest.approx(0.59)
    assert edge.fast_track == pytest.approx(0.14)


def test_the_stiffest_and_the_loosest_policy():
    stiff, loose = LRC("stiff", 1.0, 1.0, 0.0), LRC("loose", 0.0, 0.0, 1.0)
    assert (stiff.threshold, stiff.quorum, stiff.cost) == (0.95, 4, 75)
    assert (stiff.reject_penalty, loose.reject_penalty) == (pytest.approx(0.8), 0.1)
    assert (loose.threshold, loose.quorum, loose.cost) == (0.5, 1, 25)
    assert (stiff.fast_track, loose.fast_track) == (0.0, 0.2)
    assert stiff.omega0 == pytest.approx(1000.0)


def test_a_quorum_is_not_rounded_up_for_a_rounding_error():
    assert LRC("x", L=0.3, R=0.4, C=0.0).quorum == 2


@given(SHARE, SHARE, SHARE, SHARE)
def test_more_resistance_never_asks_for_less(one, other, R, C):
    low, high = (LRC("x", L, R, C) for L in sorted((one, other)))
    for name in ("damping", "threshold", "review_days", "quorum", "cost"):
        assert getattr(low, name) <= getattr(high, name)
    assert low.fast_track >= high.fast_track
    assert 0.5 <= low.threshold <= 0.95


@pytest.mark.parametrize("name", ["L", "R", "C"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_knob_out_of_range_is_named(name, value):
    with pytest.raises(ConfigError, match=f"lrc {name}: expected 0 to 1"):
        LRC("x", **({"L": 0.5, "R": 0.5, "C": 0.5} | {name: value}))


def test_every_profile_can_be_set_and_bears_its_name():
    for name, profile in LRC_PROFILES.items():
        assert Settings(lrc_profile=name).lrc_profile == profile.policy_id == name
