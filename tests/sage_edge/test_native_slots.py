"""The slot table: a prefix of live runs, one record per state, one final record per run."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sage_edge.errors import CapacityError, ConfigError
from sage_edge.native import HALT_REASONS, HaltPolicy, Ring, RingReader, SlotTable

PATIENT = HaltPolicy(eps=0.0)


def table(capacity: int = 2) -> tuple[SlotTable, RingReader]:
    ring = Ring(64)
    return SlotTable(capacity, ring, plugin=7), RingReader(ring)


def test_admission_publishes_state_zero():
    slots, reader = table()
    assert slots.admit(42, PATIENT, 1.5, now_ns=10, charge_us=20.0, feasible=False, branch=3) == (0, None)
    (record,) = reader.drain(10)
    assert record["run_id"] == 42
    assert record["time_ns"] == 10
    assert record["E"] == record["E0"] == record["best_E"] == 1.5
    assert math.isnan(record["dE"])
    assert math.isnan(record["residual"])
    assert record["spent_us"] == 20.0
    assert record["step_idx"] == 0
    assert (record["branch"], record["plugin"], record["halt_reason"], record["flags"]) == (3, 7, 0, 0b100)


@pytest.mark.parametrize(
    ("policy", "E0", "reason"),
    [
        (PATIENT.replace(max_steps=0), 1.0, "max_steps"),
        (PATIENT.replace(deadline_ns=100), 1.0, "timeout"),
        (PATIENT.replace(budget_us=5.0), 1.0, "budget"),
        (PATIENT.replace(target_E_norm=1.0), 1.0, "confidence"),
        (PATIENT, math.nan, "diverged"),
    ],
)
def test_a_run_may_end_at_its_admission(policy, E0, reason):
    slots, reader = table()
    assert slots.admit(1, policy, E0, now_ns=90, margin_ns=10, charge_us=6.0) == (0, reason)
    assert slots.summary(0).halt_reason == reason
    assert HALT_REASONS[reader.drain(1)[0]["halt_reason"]] == reason


def test_a_summary_of_a_new_run_names_every_field():
    slots, _ = table()
    slots.admit(2**64 - 1, PATIENT, 1.0, now_ns=0)
    summary = slots.summary(0)
    assert summary.run_id == 2**64 - 1
    assert (summary.step_idx, summary.best_step) == (0, 0)
    assert summary.E == summary.E0 == summary.best_E == 1.0
    assert summary.halt_reason is None
    assert math.isnan(summary.residual)
    assert math.isnan(summary.convergence_rate)
    assert (summary.spent_us, summary.monotonicity_ratio, summary.dE_variance) == (0.0, 0.0, 0.0)
    assert summary.best_is_current
    assert summary.feasible


def test_a_full_table_refuses():
    slots, reader = table(capacity=1)
    slots.admit(1, PATIENT, 1.0, now_ns=0)
    with pytest.raises(CapacityError, match="all 1 slots are live"):
        slots.admit(2, PATIENT, 1.0, now_ns=0)
    assert len(reader.drain(10)) == 1


def test_a_slot_that_is_not_live_is_an_index_error():
    slots, _ = table()
    slots.admit(1, PATIENT, 1.0, now_ns=0)
    for use in (slots.summary, slots.remove, lambda slot: slots.close(slot, "cancelled", 0)):
        with pytest.raises(IndexError, match="slot 1: expected one of the 1 live slots"):
            use(1)


def test_a_run_is_closed_once_with_a_known_reason():
    slots, reader = table()
    slots.admit(1, PATIENT, 1.0, now_ns=0)
    with pytest.raises(ConfigError, match="got 'tired'"):
        slots.close(0, "tired", 5)
    slots.close(0, "cancelled", 5)
    with pytest.raises(ConfigError, match=r"ended already \(cancelled\)"):
        slots.close(0, "error", 6)
    closing = reader.drain(10)[-1]
    assert closing["flags"] & 0b10
    assert (closing["step_idx"], closing["time_ns"]) == (0, 5)
    assert HALT_REASONS[closing["halt_reason"]] == "cancelled"


def test_numbers_out_of_range_are_refused():
    slots, _ = table()
    with pytest.raises(ConfigError, match="margin_ns"):
        slots.admit(1, PATIENT, 1.0, now_ns=0, margin_ns=-1)
    with pytest.raises(ConfigError, match="charge_us"):
        slots.admit(1, PATIENT, 1.0, now_ns=0, charge_us=math.nan)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        SlotTable(0, Ring(8))
    assert slots.live == 0


CODES = range(1, len(HALT_REASONS))
DIVERGED = HALT_REASONS.index("diverged")


@pytest.mark.parametrize("code", CODES)
def test_a_plugin_may_end_a_run_at_its_first_state(code):
    slots, reader = table()
    assert slots.admit(1, PATIENT, 1.0, now_ns=0, halt=code) == (0, HALT_REASONS[code])
    assert reader.drain(9)["halt_reason"].tolist() == [code]


@pytest.mark.parametrize("code", CODES)
def test_a_plugin_may_end_a_run_at_any_state_which_has_one_record(code):
    slots, reader = table()
    for run_id in (1, 2):
        slots.admit(run_id, PATIENT.replace(max_steps=1), 2.0, now_ns=0)
    reader.drain(9)
    # The policy ends both runs here; the plugin's decision goes before it. Runs are observed in any order.
    assert slots.observe(1, 1.0, halt=code, now_ns=9, charge_us=3.0) == HALT_REASONS[code]
    assert slots.observe(0, 1.5, now_ns=9, charge_us=5.0) == "max_steps"
    records = reader.drain(9)
    assert records["run_id"].tolist() == [2, 1]
    assert records["halt_reason"].tolist() == [code, HALT_REASONS.index("max_steps")]
    assert records["step_idx"].tolist() == [1, 1]
    assert records["spent_us"].tolist() == [3.0, 5.0]
    assert slots.summary(1).best_E == 1.0
    with pytest.raises(ConfigError, match="slot 1: its run has ended already"):
        slots.observe(1, 0.5, now_ns=10)


@pytest.mark.parametrize("E", [math.nan, math.inf, 1000.0])
def test_a_state_that_diverged_ends_as_that_whatever_its_plugin_decided(E):
    slots, reader = table()
    slots.admit(1, PATIENT, 1.0, now_ns=0)
    assert slots.observe(0, E, halt=1, now_ns=1) == "diverged"
    assert slots.admit(2, PATIENT, math.nan, now_ns=0, halt=1) == (1, "diverged")
    assert reader.drain(9)["halt_reason"].tolist() == [0, DIVERGED, DIVERGED]


@pytest.mark.parametrize("E", [math.nan, 1.9])
@pytest.mark.parametrize(("code", "astray"), [(0, [0]), (1, []), (DIVERGED, [])])
def test_a_run_is_never_rewound_from_where_its_plugin_ended_it(E, code, astray):
    slots, _ = table()
    slots.admit(1, PATIENT.replace(rewinds=3, rise=0.5), 1.0, now_ns=0)
    slots.observe(0, E, halt=code, now_ns=1)
    assert slots.astray() == astray
    assert (slots.summary(0).halt_reason is None) == bool(astray)


def test_a_code_that_is_none_is_refused_before_any_run_sees_its_state():
    slots, reader = table()
    for run_id in (1, 2):
        slots.admit(run_id, PATIENT, 1.0, now_ns=0)
    unknown = len(HALT_REASONS)
    with pytest.raises(ConfigError, match=f"halt: expected 0 or the code .*, got {unknown}"):
        slots.observe(1, 1.0, halt=unknown, now_ns=1)
    assert len(reader.drain(9)) == 2
    slots.remove(1)
    for code in (-1, unknown, 256):
        with pytest.raises(ConfigError, match=f"halt: .* got {code}"):
            slots.admit(2, PATIENT, 1.0, now_ns=0, halt=code)
    assert slots.live == 1


class SlotMachine(RuleBasedStateMachine):
    """A list in which the last run takes the place of a removed one."""

    def __init__(self):
        super().__init__()
        self.ring = Ring(1024)
        self.slots = SlotTable(4, self.ring)
        self.model: list[int] = []
        self.admitted = 0

    @precondition(lambda self: len(self.model) < 4)
    @rule()
    def admit(self):
        self.admitted += 1
        slot, reason = self.slots.admit(self.admitted, PATIENT, 1.0, now_ns=0)
        assert (slot, reason) == (len(self.model), None)
        self.model.append(self.admitted)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data):
        slot = data.draw(st.integers(0, len(self.model) - 1))
        assert self.slots.remove(slot) == len(self.model) - 1
        last = self.model.pop()
        if slot < len(self.model):
            self.model[slot] = last

    @invariant()
    def the_live_slots_hold_the_models_runs(self):
        assert self.slots.live == len(self.model)
        assert [self.slots.summary(slot).run_id for slot in range(self.slots.live)] == self.model
        assert self.ring.published == self.admitted


TestSlots = SlotMachine.TestCase
