from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.errors import ParameterError
from sage_edge.irp.reputation import (
    NEW_T3,
    OUTCOMES,
    T3,
    V3,
    Change,
    change_by_outcome,
    change_by_quality,
    change_by_time,
    operational_health,
    repetition_weight,
    rule_of,
    total_change,
)

SHARE = st.floats(0.0, 1.0)
TRUST = st.builds(T3, SHARE, SHARE, SHARE)
VALUE = V3(
    atp_earned=30.0,
    atp_expected=40.0,
    satisfaction=0.8,
    verified_claims=3,
    total_claims=4,
    witness_confidence=0.9,
    value_transferred=True,
)


def test_numbers_worked_out_by_hand():
    assert T3(0.5, 0.7, 0.9).composite == pytest.approx(0.2 + 0.21 + 0.27)
    assert change_by_quality(1.0) == pytest.approx((0.01, 0.008, 0.006))
    assert change_by_quality(0.25) == pytest.approx((-0.005, -0.004, -0.003))
    assert change_by_outcome("novel_success") == (0.035, 0.015, 0.01)
    assert change_by_outcome("ethics_violation") == (-0.05, 0.0, -0.10)
    assert change_by_time(12.0) == pytest.approx((0.0, -0.012, 0.12))
    assert [repetition_weight(n) for n in (1, 2, 3, 11, 100)] == pytest.approx([1, 0.8, 0.64, 0.8**10, 0.1])
    assert total_change(1.0, None, 2, 1.0) == pytest.approx((0.008, 0.0064 - 0.001, 0.0048 + 0.01))
    assert total_change(1.0, "expected_failure", 1, 0.0) == (-0.01, 0.0, 0.0)


def test_value_worked_out_by_hand():
    assert VALUE.valuation == pytest.approx(0.6)
    assert VALUE.veracity == pytest.approx(0.675)
    assert VALUE.validity == 1.0
    assert VALUE.composite == pytest.approx(0.18 + 0.23625 + 0.35)
    assert operational_health(T3(0.5, 0.7, 0.9), VALUE, 0.5) == pytest.approx(
        0.4 * 0.68 + 0.3 * 0.76625 + 0.15
    )


def test_a_new_role_starts_low():
    assert NEW_T3.weight == pytest.approx(0.3)


@given(TRUST, SHARE, st.none() | st.sampled_from(OUTCOMES), st.integers(1, 50), st.floats(0, 1e4))
def test_trust_and_weight_stay_within_their_bounds(trust, quality, outcome, n, months):
    after = trust.plus(total_change(quality, outcome, n, months))
    assert all(0.0 <= side <= 1.0 for side in after)
    assert 0.1 <= after.weight <= 1.0


@given(TRUST, SHARE, SHARE, st.integers(1, 50), st.floats(0, 10))
def test_a_better_run_never_earns_less(trust, one, other, n, months):
    worse, better = sorted((one, other))
    after = [trust.plus(total_change(quality, None, n, months)) for quality in (worse, better)]
    assert all(low <= high for low, high in zip(*after, strict=True))


@given(TRUST, SHARE, st.integers(1, 49))
def test_repetition_only_ever_shrinks_what_a_run_counts(trust, quality, n):
    sooner, later = (total_change(quality, None, k, 0.0) for k in (n, n + 1))
    assert all(abs(b) <= abs(a) for a, b in zip(sooner, later, strict=True))
    assert all(abs(b) >= 0.1 * abs(a) - 1e-15 for a, b in zip(change_by_quality(quality), later, strict=True))


def test_the_whole_interval_of_weights_can_be_reached():
    best = worst = NEW_T3
    for _ in range(200):
        best = best.plus(change_by_quality(1.0))
        worst = worst.plus(change_by_quality(0.0))
    assert (best.weight, worst.weight) == (pytest.approx(1.0), 0.1)


def test_the_rule_is_named_after_what_was_applied():
    assert (rule_of(None), rule_of("novel_success")) == ("t3-quality-1", "t3-outcome-1")


@pytest.mark.parametrize("quality", [-0.01, 1.01, float("nan")])
def test_a_quality_out_of_range_is_refused(quality):
    with pytest.raises(ParameterError, match="quality: expected 0 to 1"):
        total_change(quality, "novel_success", 1, 0.0)


def test_an_outcome_that_is_none_is_refused():
    with pytest.raises(ParameterError, match=r"outcome: expected one of novel_success.*'luck'"):
        total_change(0.5, "luck", 1, 0.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("atp_earned", -1.0),
        ("atp_expected", 0.0),
        ("satisfaction", 1.1),
        ("verified_claims", 5),
        ("total_claims", 0),
        ("witness_confidence", float("nan")),
    ],
)
def test_an_input_of_value_out_of_range_is_named(name, value):
    inputs = {field: getattr(VALUE, field) for field in VALUE.__slots__} | {name: value}
    with pytest.raises(ParameterError, match=f"{name}: expected"):
        V3(**inputs)


@given(TRUST, st.builds(Change, *[st.floats(-2, 2)] * 3))
def test_sides_change_on_their_own(trust, change):
    after = trust.plus(change)
    for side, by, to in zip(trust, change, after, strict=True):
        assert to == min(max(side + by, 0.0), 1.0)
