"""Limits from claims: nobody starves, nothing is handed out twice, greedy is optimal where it should be."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.orchestrator.allocation import FLOOR, POLICIES, Claim, limits

falls = st.lists(st.floats(0, 2), max_size=8)
claims = st.lists(
    st.builds(
        Claim,
        weight=st.floats(0.1, 1.0),
        spent_uatp=st.integers(0, 5000),
        start_uatp=st.floats(0, 500),
        step_uatp=st.floats(1, 500),
        falls=falls,
    ),
    min_size=1,
    max_size=6,
)


@given(claims, st.integers(1, 20_000), st.sampled_from(sorted(POLICIES)))
def test_limits_never_exceed_the_budget_and_nobody_loses_what_was_spent(members, budget, policy):
    spent = sum(claim.spent_uatp for claim in members)
    given_out = limits(POLICIES[policy], budget, spent, members)
    assert all(limit >= claim.spent_uatp for limit, claim in zip(given_out, members, strict=True))
    assert sum(given_out) <= max(budget, spent)


@given(claims, st.integers(1000, 20_000), st.sampled_from(sorted(POLICIES)))
def test_every_member_has_its_floor_while_the_budget_lasts(members, budget, policy):
    fresh = [claim._replace(spent_uatp=0) for claim in members]
    given_out = limits(POLICIES[policy], budget, 0, fresh)
    floors = [min(max(FLOOR * budget, c.start_uatp), c.need_uatp) for c in fresh]
    scale = min(1.0, budget / sum(floors)) if sum(floors) else 1.0
    for limit, floor in zip(given_out, floors, strict=True):
        assert limit >= int(scale * floor) - 1


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_the_whole_budget_is_handed_out(policy):
    members = [Claim(1.0, 100, 0.0, 10.0, [1.0, 0.5]), Claim(0.5, 50, 5.0, 20.0, [0.2])]
    assert sum(limits(POLICIES[policy], 10_000, 150, members)) == pytest.approx(10_000, abs=2)


def test_trust_and_equal_shares_are_in_proportion():
    members = [Claim(w, 0, 0.0, 1.0, [1.0] * 10_000) for w in (1.0, 3.0)]
    one, three = limits(POLICIES["trust"], 1000, 0, members)
    assert (three - 50) / (one - 50) == pytest.approx(3, rel=0.01)
    assert limits(POLICIES["equal"], 1000, 0, members) == [500, 500]


def _gain(members, budget_steps):
    """The largest sum of falls that so many steps of price 100 can buy, by trying every split."""
    best = 0.0
    for split in itertools.product(*(range(len(c.falls) + 1) for c in members)):
        if sum(split) <= budget_steps:
            best = max(best, sum(c.weight * sum(c.falls[:n]) for c, n in zip(members, split, strict=True)))
    return best


@given(
    st.lists(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), min_size=2, max_size=4), st.integers(4, 12)
)
def test_greedy_buys_as_much_as_the_best_split_where_falls_shrink(all_falls, steps):
    members = [Claim(1.0, 0, 0.0, 100.0, sorted(each, reverse=True)) for each in all_falls]
    # Half a step is kept aside for each, and a floor that its member may not need.
    budget = int((steps * 100 + 50 * len(members)) / (1 - FLOOR * len(members))) + 1
    given_out = limits(POLICIES["greedy"], budget, 0, members)
    bought = sum(sum(claim.falls[: limit // 100]) for claim, limit in zip(members, given_out, strict=True))
    assert bought >= _gain(members, steps) - 1e-9


def test_greedy_sees_through_a_step_that_pays_only_with_the_next():
    late = Claim(1.0, 0, 0.0, 100.0, [0.0, 1.0])
    early = Claim(1.0, 0, 0.0, 100.0, [0.3, 0.2])
    first, second = limits(POLICIES["greedy"], 300, 0, [late, early])
    assert first >= 200
    assert second < 100
