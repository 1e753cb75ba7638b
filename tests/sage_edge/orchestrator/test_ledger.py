"""The ATP ledger: nothing is created, lost or spent without a lock."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sage_edge.errors import LedgerError
from sage_edge.orchestrator.ledger import Ledger

CAPACITY = 1000


def open_ledger(capacity=CAPACITY, recharge_w=0.0, now_ns=lambda: 0):
    notes = []
    return Ledger(capacity, recharge_w=recharge_w, now_ns=now_ns, note=notes.append), notes


def test_a_lock_is_settled_into_what_was_spent_and_what_is_free_again():
    ledger, _ = open_ledger()
    assert ledger.lock("a", 300) == 300
    assert ledger.balance == (CAPACITY, 700, 300, 0)
    ledger.settle("a", 120)
    assert ledger.balance == (CAPACITY, 880, 0, 120)


def test_what_was_spent_comes_back_only_when_it_is_needed():
    ledger, notes = open_ledger()
    ledger.lock("a", 900)
    ledger.settle("a", 900)
    assert ledger.lock("b", 50) == 50
    assert ledger.balance.adp_uatp == 900
    assert ledger.lock("c", 500) == 500
    assert ledger.balance == (CAPACITY, 450, 550, 0)
    assert [note["operation"] for note in notes] == ["open", "lock", "settle", "lock", "recharge", "lock"]


def test_recharging_is_as_fast_as_its_power():
    clock = [0]
    ledger, _ = open_ledger(recharge_w=2.0, now_ns=lambda: clock[0])
    ledger.lock("a", CAPACITY)
    ledger.settle("a", CAPACITY)
    clock[0] = 100  # 2 W are 2 micro-ATP in each nanosecond
    assert ledger.wait_s(400) == pytest.approx(200e-9)
    assert ledger.lock("b", 400) == 200
    assert ledger.wait_s(CAPACITY + 1) == float("inf")


def test_a_step_that_cost_more_than_was_there_is_owed_and_not_forgotten():
    ledger, notes = open_ledger()
    ledger.lock("a", CAPACITY)
    ledger.settle("a", CAPACITY + 30)
    assert ledger.balance == (CAPACITY, -30, 0, CAPACITY + 30)
    assert notes[-2]["operation"] == "overdraft"
    assert ledger.lock("b", 10) == 10


def test_nothing_is_settled_that_was_not_locked():
    ledger, _ = open_ledger()
    with pytest.raises(LedgerError, match="lock before the work"):
        ledger.settle("a", 1)


class Bookings(RuleBasedStateMachine):
    """Random operations against a plain account kept beside, and an auditor who reads only the notes."""

    def __init__(self):
        super().__init__()
        self.now_ns = 0
        self.ledger, self.notes = open_ledger(recharge_w=3.0, now_ns=lambda: self.now_ns)
        self.held = {}
        self.spent = 0

    @rule(scene=st.sampled_from("abcdef"), wanted=st.integers(0, 700))
    def lock(self, scene, wanted):
        granted = self.ledger.lock(scene, wanted)
        assert 0 <= granted <= wanted
        self.held[scene] = self.held.get(scene, 0) + granted

    @precondition(lambda self: self.held)
    @rule(share=st.floats(0, 1.3), data=st.data())
    def settle(self, share, data):
        scene = data.draw(st.sampled_from(sorted(self.held)))
        spent = int(self.held.pop(scene) * share)
        self.spent += spent
        self.ledger.settle(scene, spent)

    @rule(ns=st.integers(0, 300))
    def wait(self, ns):
        self.now_ns += ns

    @invariant()
    def conserved(self):
        initial, available, locked, adp = self.ledger.balance
        assert available + locked + adp == initial == CAPACITY
        assert locked == sum(self.held.values())
        assert 0 <= self.ledger.balance.energy_ratio <= 1

    @invariant()
    def an_auditor_finds_the_same_balance(self):
        available = locked = adp = 0
        for number, note in enumerate(self.notes):
            assert note["ledger_seq"] == number
            amount = note["amount_uatp"]
            match note["operation"]:
                case "open":
                    available = amount
                case "lock" | "extend" | "overdraft":
                    available, locked = available - amount, locked + amount
                case "settle":
                    spent = note["spent_uatp"]
                    available, locked, adp = available + amount - spent, locked - amount, adp + spent
                case "recharge":
                    available, adp = available + amount, adp - amount
            assert note["balance"] == {
                "initial_uatp": CAPACITY,
                "available_uatp": available,
                "locked_uatp": locked,
                "adp_uatp": adp,
            }


TestBookings = Bookings.TestCase
