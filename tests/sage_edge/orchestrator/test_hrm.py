"""The whole orchestrator under random interleavings: nothing is lost, nothing is spent twice."""

from __future__ import annotations

import json
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sage_edge import HRM, Budget, Settings
from sage_edge.errors import (
    BudgetError,
    DeadlineError,
    ParameterError,
    PluginError,
    SageError,
    UnknownPluginError,
    UnknownRequestError,
)
from sage_edge.orchestrator import Entry
from tests.fakes import FakeClock
from tests.quadratic import QuadraticPlugin

STEP_S = 0.001
#: At 1 W a step of one slot costs 1 ATP (1 ms).
WATT = 1.0


class Plant(QuadraticPlugin):
    """A quadratic plugin whose steps take STEP_S and fail when told to."""

    def __init__(self, name, clock):
        super().__init__(before_step=self._step)
        self.name = name
        self.clock = clock
        self.fault = None

    def _step(self):
        self.clock.advance(STEP_S * (20 if self.fault == "slow" else 1))
        if self.fault == "crash":
            self.fault = None
            raise RuntimeError("a broken kernel")

    def advance(self, z, context, step_size):
        delta, terms = super().advance(z, context, step_size)
        if self.fault == "nan":
            self.fault = None
            terms = np.full_like(terms, np.nan)
        return delta, terms


def open_quiet(clock, **options):
    plants = {name: Plant(name, clock) for name in ("left", "right")}
    chosen = {"slots": 3, "queue_size": 6, "telemetry_dir": "", "power_w": WATT, "telemetry_memory": 200_000}
    hrm = HRM(Settings(**{**chosen, **options}), plants, clock)
    hrm.warm_up()
    return hrm, plants


def frame(target):
    return np.full(6, target, np.float32)


budgets = st.builds(
    Budget,
    max_steps=st.none() | st.integers(0, 20),
    deadline_ms=st.none() | st.floats(1, 60),
    atp=st.none() | st.floats(0.01, 30),
    eps=st.sampled_from([None, 0.0, 0.5]),
    branches=st.integers(1, 4),
)
plugins = st.sampled_from(["left", "right"])


class Interleavings(RuleBasedStateMachine):
    """Submit, tick, cancel, fail and wait in any order; then look at every record that was left."""

    capacity = 3

    def open(self, **options):
        return open_quiet(self.clock, **options)

    @initialize(capacity=st.sampled_from([1e6, 200.0]), recharge_w=st.sampled_from([0.0, 0.5]))
    def begin(self, capacity, recharge_w):
        self.clock = FakeClock()
        self.hrm, self.plants = self.open(atp_capacity=capacity, recharge_w=recharge_w)
        self.tickets = []
        self.refused = 0

    @rule(
        plugin=plugins,
        goal=st.floats(-50, 50),
        budget=budgets,
        priority=st.integers(-2, 2),
        latest=st.booleans(),
    )
    def submit(self, plugin, goal, budget, priority, latest):
        options = {"priority": priority}
        if latest:
            options |= {"stream_id": "camera", "keeps_latest": True}
        try:
            self.tickets.append(self.hrm.submit(plugin, frame(goal), budget, **options))
        except SageError:
            self.refused += 1

    @rule(
        members=st.lists(st.tuples(plugins, st.floats(-50, 50), budgets), min_size=1, max_size=4),
        atp=st.none() | st.floats(1, 60),
        policy=st.sampled_from([None, "equal", "trust", "proportional"]),
    )
    def submit_scene(self, members, atp, policy):
        entries = [Entry(plugin, frame(target), budget) for plugin, target, budget in members]
        try:
            _, tickets = self.hrm.submit_scene(entries, Budget(atp=atp), policy=policy)
            self.tickets += tickets
        except SageError:
            self.refused += 1

    @rule(rounds=st.integers(1, 6))
    def tick(self, rounds):
        for _ in range(rounds):
            self.hrm.serve_once()

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def cancel(self, data):
        data.draw(st.sampled_from(self.tickets)).cancel()

    @rule(plugin=plugins, fault=st.sampled_from(["slow", "nan", "crash", None]))
    def break_something(self, plugin, fault):
        self.plants[plugin].fault = fault

    @rule(ms=st.integers(0, 50))
    def wait(self, ms):
        self.clock.advance(ms / 1e3)

    @invariant()
    def energy_is_conserved(self):
        initial, available, locked, adp = self.hrm.ledger.balance
        assert available + locked + adp == initial
        assert locked >= 0
        assert adp >= 0

    @invariant()
    def no_slot_leaks(self):
        for lane in self.hrm.status().values():
            assert lane["slots"] == 3
            assert 0 <= lane["live"] <= self.capacity

    def teardown(self):
        if not hasattr(self, "hrm"):
            return
        for plant in self.plants.values():
            plant.fault = None
        bound = 40 * (len(self.tickets) + 1)  # nobody runs longer than 20 steps, so nobody starves
        for _ in range(bound):
            if all(ticket.future.done() for ticket in self.tickets):
                break
            self.hrm.serve_once()
        assert all(ticket.future.done() for ticket in self.tickets)
        assert self.hrm.ledger.balance.locked_uatp == 0
        self.hrm.close()
        assert sum(count for name, count in self.hrm.telemetry.status().items() if "lost" in name) == 0
        records, missed = self.hrm.telemetry.hub.after(-1, 10**6)
        assert missed == 0
        self.look_at([record for record in records if record["kind"] == "step"])

    def look_at(self, steps):
        runs = defaultdict(list)
        for record in steps:
            runs[record["run_id"]].append(record)
        for records in runs.values():
            assert [r["halt_reason"] is not None for r in records] == [False] * (len(records) - 1) + [True]
        for ticket in self.tickets:
            seen = [runs[member.run_id] for member in ticket.members if member.run_id in runs]
            if ticket.future.exception() is None:
                self.check_answer(ticket.future.result(), seen)
        spent = sum(round(records[-1]["budget"]["ATP_spent"] * 1e6) for records in runs.values())
        charged = sum(member.spent_uatp for ticket in self.tickets for member in ticket.members)
        assert charged == spent

    def check_answer(self, result, seen):
        energies = [r["E"] for records in seen for r in records if r["E"] is not None]
        assert result.run.best_E == pytest.approx(min(energies), rel=1e-6)
        if math.isfinite(result.run.best_E):
            target = result.answer.array  # E is the mean squared distance to it; the answer is that state
            assert np.isfinite(target).all()


Interleavings.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestInterleavings = Interleavings.TestCase


def answer(hrm, ticket, rounds=200):
    for _ in range(rounds):
        if ticket.future.done():
            return ticket.future.result()
        hrm.serve_once()
    raise AssertionError("no answer")


def test_a_request_with_an_energy_budget_never_spends_more_than_a_step_beyond_it():
    hrm, _ = open_quiet(FakeClock())
    for atp in (1.5, 3.0, 7.25):
        result = answer(hrm, hrm.submit("left", frame(40.0), Budget(atp=atp, eps=0.0)))
        assert result.run.halt_reason == "budget"
        assert atp - 2.0 < result.ATP_spent <= atp
    hrm.close()


def test_a_scene_is_queued_whole_or_not_at_all():
    hrm, _ = open_quiet(FakeClock())
    fill = [hrm.submit("right", frame(1.0)) for _ in range(5)]
    with pytest.raises(SageError, match="waiting already"):
        hrm.submit_scene([Entry("left", frame(1.0)), Entry("right", frame(1.0)), Entry("right", frame(2.0))])
    for ticket in fill:
        answer(hrm, ticket)
    hrm.close()
    assert hrm.ledger.balance.locked_uatp == 0


def test_what_one_plugin_leaves_lets_another_go_further():
    """The left one converges at once; alone, the right one would get half of the budget."""
    clock = FakeClock()
    hrm, _ = open_quiet(clock)
    entries = [Entry("left", frame(0.0)), Entry("right", frame(80.0), Budget(eps=0.0))]
    scene, (left, right) = hrm.submit_scene(entries, Budget(atp=12.0), policy="equal")
    done = [answer(hrm, ticket) for ticket in (left, right)]
    assert done[0].run.halt_reason == "slope<eps"
    assert done[1].ATP_spent > 6.0
    assert scene.spent_uatp <= 12_000_000
    hrm.close()


@pytest.mark.parametrize("shared", [Budget(), Budget(atp=60.0)])
def test_a_member_keeps_to_its_own_budget_in_a_scene_too(shared):
    hrm, _ = open_quiet(FakeClock())
    own = Budget(atp=4.0, eps=0.0)
    entries = [Entry("left", frame(40.0), own), Entry("right", frame(40.0), Budget(eps=0.0))]
    _, tickets = hrm.submit_scene(entries, shared)
    capped, free = [answer(hrm, ticket) for ticket in tickets]
    assert capped.run.halt_reason == "budget"
    assert 2.0 < capped.ATP_spent <= 4.0
    assert free.ATP_spent > 8.0
    hrm.close()


def test_a_scene_tells_the_steps_of_a_member_that_failed():
    hrm, plants = open_quiet(FakeClock())
    entries = [Entry("left", frame(40.0), Budget(eps=0.0)), Entry("right", frame(1.0))]
    _, (failing, other) = hrm.submit_scene(entries)
    for _ in range(3):
        hrm.serve_once()
    plants["left"].fault = "crash"
    answer(hrm, other)
    hrm.close()
    assert isinstance(failing.future.exception(), PluginError)
    (summary,) = [r for r in hrm.telemetry.hub.after(-1, 10**6)[0] if r["kind"] == "scene"]
    assert (summary["members"][0]["steps"], summary["members"][0]["halt_reason"]) == (3, "error")


def test_a_scene_halts_together_and_its_contributions_add_up_to_the_change_of_H():
    hrm, _ = open_quiet(FakeClock(), scene_eps=1e-2, scene_steps=2)
    entries = [Entry("left", frame(9.0), Budget(eps=0.0)), Entry("right", frame(5.0), Budget(eps=0.0))]
    scene, tickets = hrm.submit_scene(entries)
    results = [answer(hrm, ticket) for ticket in tickets]
    assert {result.run.halt_reason for result in results} == {"global_halt"}
    hrm.close()
    records, _ = hrm.telemetry.hub.after(-1, 10**6)
    steps = [r for r in records if r["kind"] == "step" and not r["closing"]]
    contributions = [r["trust"]["contribution_to_H"] for r in steps if r["step_idx"]]
    (summary,) = [r for r in records if r["kind"] == "scene"]
    assert sum(contributions) == pytest.approx(summary["H_first"] - summary["H_last"], rel=1e-5)
    assert summary["global_halt"]
    assert pytest.approx(summary["H_last"]) == scene.H[-1].H


def test_an_empty_account_is_said_with_the_time_until_it_pays_again():
    hrm, _ = open_quiet(FakeClock(), atp_capacity=25.0, recharge_w=0.5)
    answer(hrm, hrm.submit("left", frame(90.0), Budget(atp=25.0, eps=0.0, max_steps=64)))
    hrm._served["left"].profile.start_uatp = 5e7
    with pytest.raises(BudgetError, match="try again in"):
        hrm.submit("left", frame(1.0))
    assert hrm.ledger.balance.locked_uatp == 0
    hrm.close()


def test_a_deadline_that_the_queue_will_outlast_is_refused_at_the_door():
    clock = FakeClock()
    hrm, _ = open_quiet(clock, slots=1, queue_size=32)
    for _ in range(4):
        answer(hrm, hrm.submit("left", frame(40.0), Budget(eps=0.0, max_steps=20)))
    running = [hrm.submit("left", frame(40.0), Budget(eps=0.0, max_steps=20)) for _ in range(10)]
    with pytest.raises(DeadlineError, match=r"deadline_ms: 30 .*wait 100 \+") as refused:
        hrm.submit("left", frame(1.0), Budget(deadline_ms=30.0), reserve_ns=2_000_000)
    assert refused.value.bound_ms == {"wait": 100.0, "encode": 0.0, "decode": 0.0, "reply": 2.0}
    urgent = hrm.submit("left", frame(1.0), Budget(deadline_ms=30.0), priority=5)
    assert answer(hrm, urgent).run.step_idx >= 0
    for ticket in running:
        answer(hrm, ticket)
    hrm.close()


def test_a_large_input_does_not_speak_for_small_ones():
    clock = FakeClock()
    hrm, plants = open_quiet(clock)
    plant, encode = plants["left"], plants["left"].encode

    def slow_encode(inputs):
        clock.advance(0.0001 * max(x[0] for x in inputs))
        return encode(inputs)

    plant.encode, plant.input_size = slow_encode, lambda x0: float(x0[0])
    for target in [10.0, 10_000.0] * 5:
        answer(hrm, hrm.submit("left", frame(target), Budget(max_steps=0)))
    with pytest.raises(DeadlineError) as refused:
        hrm.submit("left", frame(10_000.0), Budget(deadline_ms=100.0))
    assert refused.value.bound_ms["encode"] >= 1000.0
    assert answer(hrm, hrm.submit("left", frame(10.0), Budget(deadline_ms=100.0))).run.step_idx > 0
    assert hrm.status()["left"]["bound_ms"]["encode"] < 10.0
    hrm.close()


def test_one_slow_first_state_refuses_nobody_for_longer_than_a_second():
    clock = FakeClock()
    hrm, plants = open_quiet(clock)
    encode, delays_s = plants["left"].encode, []

    def stalled(inputs):
        clock.advance(delays_s.pop() if delays_s else 0.002)
        return encode(inputs)

    plants["left"].encode = stalled
    for _ in range(5):
        answer(hrm, hrm.submit("left", frame(9.0)))
    for stalls in (1, 2, 3):
        for _ in range(stalls):
            delays_s.append(5.0)
            answer(hrm, hrm.submit("left", frame(9.0)))
        outcomes = []
        for _ in range(11):
            try:
                outcomes.append(answer(hrm, hrm.submit("left", frame(9.0), Budget(deadline_ms=50.0))))
            except DeadlineError:
                outcomes.append(None)
            clock.advance(0.1)
        assert outcomes[-1] is not None
        assert stalls > 1 or None not in outcomes
    hrm.close()


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        ([], ParameterError),
        ([Entry("left", frame(1.0)), Entry("nobody", frame(1.0))], UnknownPluginError),
        ([Entry("left", frame(1.0), Budget(max_steps=10_000))], ParameterError),
    ],
)
def test_a_scene_that_cannot_be_leaves_nothing_behind(entries, error):
    hrm, _ = open_quiet(FakeClock())
    with pytest.raises(error):
        hrm.submit_scene(entries)
    assert hrm.ledger.balance.locked_uatp == 0
    assert len(hrm.telemetry.directory) == 0
    hrm.close()


VALUE = {
    "satisfaction": 0.9,
    "verified_claims": 3,
    "total_claims": 4,
    "witness_confidence": 0.8,
    "value_transferred": True,
}


def test_measured_quality_moves_a_plugins_weight_once_for_each_answer():
    hrm, _ = open_quiet(FakeClock())
    before = hrm.submit("left", frame(1.0), request_id="first")
    answer(hrm, before)
    update = hrm.report_quality("first", 0.9, source="label", inputs=VALUE)
    assert update["role"] == "left"
    assert update["run_id"] == before.run_id
    assert update["weight_after"] > update["weight_before"] == before.members[0].weight
    assert update["v3"]["atp_earned"] == pytest.approx(update["v3"]["atp_expected"])
    with pytest.raises(UnknownRequestError):
        hrm.report_quality("first", 0.9, source="label")
    after = hrm.submit("left", frame(1.0))
    assert after.members[0].weight == pytest.approx(update["weight_after"])
    answer(hrm, after)
    hrm.close()
    (record,) = [r for r in hrm.telemetry.hub.after(-1, 10**6)[0] if r["kind"] == "trust"]
    assert record["request_id"] == "first"


def test_a_report_that_is_refused_can_be_made_again():
    hrm, _ = open_quiet(FakeClock())
    answer(hrm, hrm.submit("left", frame(1.0), request_id="first"))
    for quality, inputs in [
        (1.5, None),
        (float("nan"), None),
        (0.5, {}),
        (0.5, VALUE | {"satisfaction": 2.0}),
    ]:
        with pytest.raises(ParameterError):
            hrm.report_quality("first", quality, source="label", inputs=inputs)
    assert hrm.report_quality("first", 0.5, source="audit")["quality"] == 0.5
    hrm.close()


def test_the_status_and_the_records_tell_the_calibrated_price_and_the_deadline_that_was_asked_for(tmp_path):
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"plugins": {"left": {"power_w": 9.5, "source": "rapl:package-0"}}}))
    hrm, _ = open_quiet(FakeClock(), prices_file=str(file))
    assert hrm.prices() == {
        "left": {"power_w": 9.5, "source": "calibrated:rapl:package-0"},
        "right": {"power_w": WATT, "source": "declared"},
    }
    answer(hrm, hrm.submit("left", frame(9.0), Budget(deadline_ms=80.0), reserve_ns=7_000_000))
    hrm.close()
    steps = [r for r in hrm.telemetry.hub.after(-1, 10**6)[0] if r["kind"] == "step"]
    assert {(r["budget"]["power_w"], r["budget"]["price_source"]) for r in steps} == {
        (9.5, "calibrated:rapl:package-0")
    }
    for record in steps:
        budget = record["budget"]
        assert budget["deadline_remaining_ms"] == pytest.approx(80.0 - budget["time_ms"])
