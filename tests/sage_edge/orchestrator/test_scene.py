"""Scenes: shared budgets that really move, one energy, one end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.errors import ParameterError
from sage_edge.native import RunSummary
from sage_edge.orchestrator.ledger import Ledger
from sage_edge.orchestrator.scene import Rules
from tests.tickets import make_member, make_scene

#: power_w = 1: a microsecond costs 1000 micro-ATP.
STEP_US = 100.0
STEP_UATP = 100_000


def summary(reason="slope<eps", steps=3):
    return RunSummary(1, steps, 0.0, 1.0, 0.0, steps, reason, 0.0, 0.0, 1.0, 0.0, 0.0, True, True)


def posted(count=2, *, budget_steps=None, rules=None, weights=None):
    """A posted scene with the notes that it left and its ledger's."""
    notes = []
    ledger = Ledger(
        10**9, recharge_w=0.0, now_ns=lambda: 0, note=lambda fields: notes.append({"kind": "ledger"} | fields)
    )
    budget = None if budget_steps is None else budget_steps * STEP_UATP
    scene = make_scene(budget_uatp=budget, rules=rules, is_posted=True, ledger=ledger, notes=notes)
    members = [
        make_member(scene, number, weight=(weights or [1.0] * count)[number]) for number in range(count)
    ]
    for member in members:
        member.profile.start_uatp = member.profile.step_uatp = float(STEP_UATP)
    scene.open(members, budget or 10**6)
    return scene, members, notes, ledger


def test_H_is_the_weighted_sum_and_its_changes_are_the_contributions():
    scene, (a, b), _, _ = posted(weights=[0.5, 2.0], rules=Rules(eps_H=0.0))
    contributions = []
    for member, E in [(a, 4.0), (b, 1.0), (a, 3.0), (b, 0.25), (a, 3.5)]:
        before = scene.energy
        joins = not member.best
        last = member.E_norm
        member.observe(E, STEP_US)
        if not joins:
            contributions.append(-member.weight * (E - last))
            assert contributions[-1] == pytest.approx(before - scene.energy)
    assert scene.energy == 0.5 * 3.5 + 2.0 * 0.25
    assert [sample.H for sample in scene.H] == [2.0, 4.0, 3.5, 2.0, 2.25]


def test_what_a_member_leaves_reaches_the_others_at_once():
    _, (a, b), notes, _ = posted(budget_steps=10, rules=Rules(policy="equal"))
    assert (a.limit_uatp, b.limit_uatp) == (5 * STEP_UATP, 5 * STEP_UATP)
    a.observe(1.0, STEP_US)
    b.observe(1.0, STEP_US)
    a.scene.leave(a, summary())
    assert b.limit_uatp == 9 * STEP_UATP
    assert b.budget_us == 9 * STEP_US
    assert [note["cause"] for note in notes if note["kind"] == "allocation"] == ["admit", "halt"]


def test_a_member_that_gains_as_planned_moves_nothing_and_one_that_does_not_moves_the_limits():
    _, (a, b), notes, _ = posted(budget_steps=8, rules=Rules(hysteresis=0.3))
    a.observe(1.0, STEP_US)
    b.observe(1.0, STEP_US)
    limits = a.limit_uatp, b.limit_uatp
    planned = a.profile.falls([1.0], 1)[0]
    a.observe(1.0 - planned, 2 * STEP_US)
    assert (a.limit_uatp, b.limit_uatp) == limits
    a.observe(1.0 - planned, 3 * STEP_US)
    a.observe(1.0 - planned, 4 * STEP_US)
    assert a.limit_uatp < limits[0]
    assert b.limit_uatp > limits[1]
    assert [note["cause"] for note in notes if note["kind"] == "allocation"][-1] == "replan"


def test_a_scene_whose_energy_has_settled_halts_all_that_still_run():
    scene, (a, b, c), _, _ = posted(3, rules=Rules(K_H=2, eps_H=1e-2))
    for member in (a, b, c):
        member.observe(1.0, STEP_US)
    c.scene.leave(c, summary())
    a.observe(0.5, STEP_US)
    b.observe(0.5, STEP_US)
    for _ in range(3):  # the first state after the fall of each is still next to the fall of the other
        assert not scene.global_halt
        a.observe(0.5, STEP_US)
        b.observe(0.499, STEP_US)
    assert scene.global_halt
    assert (a.order, b.order, c.order) == ("global_halt", "global_halt", None)


def test_a_scene_waits_for_a_member_that_has_no_slot_yet():
    scene, (a, _), _, _ = posted(rules=Rules(K_H=1, eps_H=1.0))
    for _ in range(5):
        a.observe(1.0, STEP_US)
    assert not scene.global_halt
    assert a.order is None


def test_a_cancelled_member_stays_cancelled():
    scene, (a, b), _, _ = posted(rules=Rules(K_H=1, eps_H=1.0))
    a.order = "cancelled"
    for _ in range(3):
        a.observe(1.0, STEP_US)
        b.observe(1.0, STEP_US)
    assert scene.global_halt
    assert (a.order, b.order) == ("cancelled", "global_halt")


def test_an_energy_that_is_no_number_leaves_H_as_it_was():
    scene, (a, b), _, _ = posted(rules=Rules(eps_H=0.0))
    a.observe(2.0, STEP_US)
    b.observe(3.0, STEP_US)
    a.observe(math.nan, STEP_US)
    assert scene.energy == 5.0


def test_an_open_ended_scene_extends_its_hold_before_it_is_used_up():
    scene, (a, b), _, ledger = posted()
    for steps in range(1, 40):
        a.observe(1.0, steps * STEP_US)
        b.observe(1.0, steps * STEP_US)
        assert ledger.balance.locked_uatp >= scene.spent_uatp
    scene.leave(a, summary())
    scene.leave(b, summary())
    assert ledger.balance[1:] == (10**9 - scene.spent_uatp, 0, scene.spent_uatp)


def test_where_the_account_has_no_more_the_rest_becomes_the_limit():
    notes = []
    ledger = Ledger(6 * STEP_UATP, recharge_w=1e-9, now_ns=lambda: 0, note=notes.append)
    scene = make_scene(ledger=ledger)
    member = make_member(scene, 1)
    scene.open([member], 4 * STEP_UATP)
    for steps in range(1, 6):
        member.observe(1.0, steps * STEP_US)
    assert member.limit_uatp == 6 * STEP_UATP
    assert ledger.balance.available_uatp == 0


def test_a_posted_scene_leaves_one_record_of_its_end():
    scene, (a, b), notes, _ = posted(budget_steps=6)
    a.observe(2.0, STEP_US)
    b.observe(4.0, STEP_US)
    a.observe(1.0, 2 * STEP_US)
    scene.leave(a, summary(steps=1))
    assert not [note for note in notes if note["kind"] == "scene"]
    scene.leave(b, summary("budget", steps=0))
    (record,) = [note for note in notes if note["kind"] == "scene"]
    assert (record["H_first"], record["H_last"]) == (6.0, 5.0)
    assert [m["halt_reason"] for m in record["members"]] == ["slope<eps", "budget"]
    assert sum(m["spent_uatp"] for m in record["members"]) == scene.spent_uatp == 3 * STEP_UATP


def test_an_unknown_policy_is_refused_by_name():
    with pytest.raises(ParameterError, match="fair"):
        Rules().with_policy("fair")


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(-3, 3)), max_size=40), st.integers(3, 30))
def test_limits_of_those_who_run_never_exceed_what_is_left(events, budget_steps):
    scene, members, _, _ = posted(3, budget_steps=budget_steps)
    charged = [0.0, 0.0, 0.0]
    for number, E in events:
        member = members[number]
        if member.has_ended:
            continue
        charged[number] += STEP_US
        if round(charged[number] * 1000) > member.limit_uatp:
            scene.leave(member, summary("budget"))
        else:
            member.observe(E, charged[number])
        running = [m for m in members if not m.has_ended]
        promised = sum(m.limit_uatp - m.spent_uatp for m in running)
        assert scene.spent_uatp + promised <= scene.budget_uatp


def test_a_step_that_costs_far_more_than_usual_ends_no_run_that_has_no_budget():
    scene, (a,), _, ledger = posted(count=1)
    a.observe(1.0, STEP_US)
    a.observe(0.5, 50 * STEP_US)
    assert a.budget_us is None
    assert ledger.balance.locked_uatp > scene.spent_uatp
