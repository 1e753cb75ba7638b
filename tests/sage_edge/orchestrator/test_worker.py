"""Serving one plugin's tickets, tick by tick, with a clock that only moves when told."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from sage_edge import native
from sage_edge.errors import CancelledRequestError, DeadlineError, EngineError, PluginError, SupersededError
from sage_edge.orchestrator.queue import WaitingRoom
from sage_edge.orchestrator.worker import Worker
from sage_edge.runtime import CpuRefiner, open_slots
from sage_edge.telemetry import Metrics, RunDirectory
from tests.fakes import FakeClock
from tests.quadratic import QuadraticPlugin
from tests.tickets import make_ticket

NEVER_NS = 2**63 - 1
STEP_NS = 10_000_000


class Bench:
    """A worker on a fake clock whose engine takes STEP_NS for a step."""

    def __init__(self, slots=2, capacity=16, history=0):
        self.clock = FakeClock()
        self.step_ns = STEP_NS
        self.plugin = QuadraticPlugin(before_step=self._pass_a_step)
        self.ring = native.Ring(1024)
        self.reader = native.RingReader(self.ring)
        self.refiner = CpuRefiner(
            open_slots(self.plugin, capacity=slots, threads=1, history=history),
            self.plugin.example,
            ring=self.ring,
            plugin_number=0,
            now_ns=self.clock.monotonic_ns,
        )
        self.room = WaitingRoom(capacity)
        self.worker = Worker(
            self.plugin,
            self.refiner,
            self.room,
            clock=self.clock,
            metrics=Metrics(),
            directory=RunDirectory(),
            branch_slots=slots,
        )
        self.engine_error = None
        self.ended_ns = {}
        self._count = 0

    def _pass_a_step(self):
        self.clock.advance(self.step_ns / 1e9)
        if self.engine_error:
            raise self.engine_error

    def ask(self, target, *, deadline_ns=NEVER_NS, options=None, **limits):
        self._count += 1
        options = options or {}
        policy = self.plugin.halting.replace(deadline_ns=deadline_ns, **limits)
        x0 = np.full(6, target, np.float32)
        now_ns = self.clock.monotonic_ns()
        ticket = make_ticket(
            self._count, x0, policy, start_ns=now_ns, deadline_ns=deadline_ns, power_w=10.0, **options
        )
        ticket.future.add_done_callback(
            lambda _: self.ended_ns.setdefault(ticket.request_id, self.clock.monotonic_ns())
        )
        if displaced := self.room.put(ticket):
            self.worker.displace(displaced, by=ticket)
        return ticket

    def serve(self, rounds=100):
        for _ in range(rounds):
            self.worker.serve_once(wait=False)


def test_a_request_is_answered_with_its_converged_state():
    bench = Bench()
    ticket = bench.ask(4.0)
    bench.serve()
    result = ticket.future.result(timeout=0)
    assert result.run.halt_reason == "slope<eps"
    assert not result.is_partial
    # E halves its root at each step from 16; the range of three states is below 1e-3 from 2^-4 on.
    energies = [16.0 * 0.25**k for k in range(40)]
    steps = next(k for k in range(2, 40) if energies[k - 2] - energies[k] < 1e-3)
    assert result.run.step_idx == steps
    np.testing.assert_allclose(result.answer.array, 4.0 * (1 - 0.5**steps), rtol=1e-5)


def test_max_steps_counts_steps_and_zero_gives_the_initial_answer():
    bench = Bench()
    tickets = [bench.ask(4.0, max_steps=n) for n in (0, 1, 3)]
    bench.serve()
    results = [ticket.future.result(timeout=0) for ticket in tickets]
    assert [r.run.step_idx for r in results] == [0, 1, 3]
    assert {r.run.halt_reason for r in results} == {"max_steps"}
    assert all(r.is_partial for r in results)


def test_a_deadline_ends_the_run_before_it_with_the_best_answer_so_far():
    bench = Bench()
    bench.serve(1)
    warm = bench.ask(4.0)
    bench.serve()
    assert warm.future.done()
    deadline_ns = bench.clock.monotonic_ns() + 5 * STEP_NS + STEP_NS // 2
    ticket = bench.ask(90.0, deadline_ns=deadline_ns)
    bench.serve()
    result = ticket.future.result(timeout=0)
    assert result.run.halt_reason == "timeout"
    assert result.is_partial
    assert 1 <= result.run.step_idx <= 5
    assert bench.clock.monotonic_ns() <= deadline_ns


def test_one_slow_tick_does_not_forbid_steps_for_ever():
    bench = Bench(slots=1)
    bench.step_ns = 50 * STEP_NS
    bench.ask(90.0, max_steps=1)
    bench.serve(2)
    bench.step_ns = STEP_NS

    def steps_within_ten():
        ticket = bench.ask(90.0, deadline_ns=bench.clock.monotonic_ns() + 10 * STEP_NS)
        bench.serve(12)
        return ticket.future.result(timeout=0).run.step_idx

    assert steps_within_ten() == 0
    bench.clock.advance(0.5)
    assert steps_within_ten() >= 1
    for _ in range(10):
        last = steps_within_ten()
    assert last >= 5


def test_a_deadline_shorter_than_a_step_gets_the_initial_answer():
    bench = Bench()
    bench.ask(4.0)
    bench.serve()
    ticket = bench.ask(4.0, deadline_ns=bench.clock.monotonic_ns() + STEP_NS // 10)
    bench.serve()
    result = ticket.future.result(timeout=0)
    assert (result.run.halt_reason, result.run.step_idx) == ("timeout", 0)


def test_a_deadline_that_has_passed_in_the_queue_is_refused_as_soon_as_it_is_seen():
    bench = Bench(slots=1)
    running = bench.ask(4.0)
    bench.worker.serve_once(wait=False)
    late = bench.ask(4.0, deadline_ns=bench.clock.monotonic_ns() + STEP_NS // 2)
    bench.serve(2)
    assert not running.future.done()
    with pytest.raises(DeadlineError):
        late.future.result(timeout=0)


def test_a_cancelled_run_frees_its_slot_before_the_next_step():
    bench = Bench(slots=1)
    first = bench.ask(90.0)
    bench.serve(2)
    steps = bench.refiner.live
    waiting = bench.ask(4.0)
    first.cancel()
    before_ns = bench.clock.monotonic_ns()
    bench.worker.serve_once(wait=False)
    assert steps == 1
    assert bench.refiner.live == 0
    assert bench.clock.monotonic_ns() == before_ns  # no engine ran for it
    with pytest.raises(CancelledRequestError):
        first.future.result(timeout=0)
    bench.serve()
    assert waiting.future.result(timeout=0).run.halt_reason == "slope<eps"
    reasons = bench.reader.drain(1024)
    closing = reasons[(reasons["run_id"] == 1) & (reasons["halt_reason"] != 0)]
    assert [native.HALT_REASONS[code] for code in closing["halt_reason"]] == ["cancelled"]


def test_a_freed_slot_is_refilled_before_the_next_tick():
    bench = Bench(slots=2)
    long, short, third = bench.ask(90.0), bench.ask(1.0, max_steps=1), bench.ask(90.0)
    bench.serve(1)
    assert short.future.done()
    bench.serve(1)
    assert bench.refiner.live == 2
    assert not long.future.done()
    records = bench.reader.drain(1024)
    assert set(records["run_id"]) == {long.run_id, short.run_id, third.run_id}


def test_budget_and_quality_end_a_run_with_their_own_reasons():
    bench = Bench()
    # Two live slots share each tick: 10 ms / 2 = 5000 us for each.
    by_budget = bench.ask(90.0, budget_us=12_000.0)
    by_quality = bench.ask(90.0, target_E_norm=1e3)
    bench.serve(3)
    quality = by_quality.future.result(timeout=0)
    bench.serve()
    budget = by_budget.future.result(timeout=0)
    assert budget.run.halt_reason == "budget"
    assert budget.run.spent_us <= 12_000.0
    assert quality.run.halt_reason == "confidence"
    assert quality.run.best_E <= 1e3
    assert budget.ATP_spent == pytest.approx(10.0 * budget.run.spent_us / 1e3)


def test_a_nan_energy_ends_the_run_as_diverged_with_the_best_earlier_state():
    bench = Bench(slots=1)
    ticket = bench.ask(4.0)
    bench.serve(2)
    inner = bench.plugin.advance

    def broken(z, context, step_size):
        delta, terms = inner(z, context, step_size)
        return delta, np.full_like(terms, np.nan)

    bench.plugin.advance = broken
    bench.serve()
    result = ticket.future.result(timeout=0)
    assert result.run.halt_reason == "diverged"
    assert result.run.best_step == 2
    np.testing.assert_allclose(result.answer.array, 4.0 * (1 - 0.5**2))
    assert math.isfinite(result.run.best_E)


def test_a_failing_engine_fails_its_requests_and_not_the_service():
    bench = Bench()
    bench.worker.start()
    bench.engine_error = RuntimeError("a broken kernel")
    lost = bench.ask(4.0)
    with pytest.raises(PluginError, match=r"quadratic\.advance: raised RuntimeError"):
        lost.future.result(timeout=10)
    bench.engine_error = None
    assert bench.ask(4.0).future.result(timeout=10).run.halt_reason == "slope<eps"
    bench.room.close()
    bench.worker.join(10)
    assert not bench.worker.is_alive


def test_closing_the_room_finishes_what_was_accepted():
    bench = Bench(slots=1)
    tickets = [bench.ask(4.0) for _ in range(5)]
    bench.room.close()
    bench.worker.start()
    bench.worker.join(10)
    assert [t.future.result(timeout=0).run.halt_reason for t in tickets] == ["slope<eps"] * 5


def diverge_once(bench, at_call):
    """Make the engine return energies that are no numbers at one of its calls."""
    inner, calls = bench.plugin.advance, []

    def advance(z, context, step_size):
        calls.append(step_size.copy())
        delta, terms = inner(z, context, step_size)
        return (delta, np.full_like(terms, np.nan)) if len(calls) == at_call else (delta, terms)

    bench.plugin.advance = advance
    return calls


def test_a_run_that_goes_astray_is_taken_back_to_its_best_state_and_steps_half_as_far():
    bench = Bench(slots=1)
    calls = diverge_once(bench, at_call=3)
    ticket = bench.ask(4.0, rewinds=1)
    bench.serve()
    result = ticket.future.result(timeout=0)
    assert result.run.halt_reason == "slope<eps"
    assert (result.run.rewinds, result.run.branch) == (1, 1)
    assert [float(sizes[0]) for sizes in calls[:5]] == [0.5, 0.5, 0.5, 0.25, 0.25]
    records = bench.reader.drain(1024)
    rewound = records[(records["flags"] & 8) != 0]
    assert rewound["step_idx"].tolist() == [3]
    assert rewound["E"].tolist() == pytest.approx([16.0 * 0.25**2])
    assert result.run.best_E < 0.05


def test_a_second_rewind_goes_further_back():
    bench = Bench(slots=1, history=4)
    inner, count = bench.plugin.advance, [0]

    def advance(z, context, step_size):
        count[0] += 1
        delta, terms = inner(z, context, step_size)
        return (delta, np.full_like(terms, np.nan)) if count[0] in (4, 5) else (delta, terms)

    bench.plugin.advance = advance
    ticket = bench.ask(4.0, rewinds=2)
    bench.serve()
    records = bench.reader.drain(1024)
    restored = records[(records["flags"] & 8) != 0]["E"].tolist()
    assert restored == pytest.approx([16.0 * 0.25**3, 16.0 * 0.25**2])
    assert ticket.future.result(timeout=0).run.rewinds == 2


def test_a_moved_slot_keeps_its_own_step_size_and_history():
    bench = Bench(slots=2, history=2)
    short = bench.ask(4.0, max_steps=4)
    calls = diverge_once(bench, at_call=3)
    long = bench.ask(90.0, rewinds=1)
    bench.serve()
    assert short.future.result(timeout=0).run.halt_reason == "diverged"
    assert long.future.result(timeout=0).run.rewinds == 1
    assert [len(sizes) for sizes in calls[:5]] == [2, 2, 2, 1, 1]
    assert float(calls[4][0]) == 0.25


def test_branches_run_beside_each_other_and_the_best_one_answers():
    bench = Bench(slots=4)
    ticket = bench.ask(4.0, options={"branches": 3}, max_steps=2)
    bench.serve()
    result = ticket.future.result(timeout=0)
    records = bench.reader.drain(1024)
    finals = records[records["halt_reason"] != 0]
    assert sorted(finals["branch"].tolist()) == [0, 1, 2]
    assert len(set(records[records["step_idx"] == 0]["E"].tolist())) == 3
    assert result.branches == 3
    assert result.run.best_E == pytest.approx(float(finals["best_E"].min()))
    assert result.ATP_spent == pytest.approx(10.0 * float(finals["spent_us"].sum()) / 1e3, rel=1e-6)


def test_branches_take_only_slots_that_nobody_waits_for():
    bench = Bench(slots=2)
    branched = bench.ask(4.0, options={"branches": 3})
    plain = bench.ask(4.0)
    bench.serve(1)
    assert set(bench.reader.drain(1024)["run_id"]) == {branched.run_id, plain.run_id}
    bench.serve()
    assert branched.future.result(timeout=0).branches == 1
    assert branched.members[0].scene.spent_uatp == branched.members[0].spent_uatp


def test_a_peek_shows_the_best_so_far_and_the_run_goes_on():
    bench = Bench(slots=1)
    ticket = bench.ask(4.0)
    asked = bench.worker.peek(ticket)
    bench.serve(1)
    first = asked.result(timeout=0)
    later = bench.worker.peek(ticket)
    bench.serve(1)
    second = later.result(timeout=0)
    assert not first.is_final
    assert first.is_partial
    assert first.run.best_step < second.run.best_step
    assert second.run.best_E < first.run.best_E
    np.testing.assert_allclose(first.answer.array, 4.0 * (1 - 0.5**first.run.best_step))
    bench.serve()
    assert ticket.future.result(timeout=0).is_final


def test_peeks_that_come_without_end_get_one_look_a_tick(monkeypatch):
    bench = Bench(slots=1)
    ticket = bench.ask(4.0)
    asked = [bench.worker.peek(ticket) for _ in range(100)]
    look, looks = bench.refiner.peek, []

    def look_and_be_asked_again(run_id):
        looks.append(run_id)
        asked.append(bench.worker.peek(ticket))
        return look(run_id)

    monkeypatch.setattr(bench.refiner, "peek", look_and_be_asked_again)
    bench.serve(1)
    assert looks == [ticket.run_id]
    assert [peek.done() for peek in asked] == [True] * 100 + [False]
    assert len({id(peek.result(timeout=0)) for peek in asked[:100]}) == 1
    bench.serve(1)
    assert asked[100].result(timeout=0).run.best_step > asked[0].result(timeout=0).run.best_step


def test_a_peek_at_what_is_in_no_slot_shows_nothing():
    bench = Bench(slots=1)
    bench.ask(90.0)
    waiting = bench.ask(4.0)
    asked = bench.worker.peek(waiting)
    bench.serve(1)
    assert asked.result(timeout=0) is None


def test_an_ordered_halt_gives_the_answer_so_far():
    bench = Bench(slots=1)
    ticket = bench.ask(90.0)
    bench.serve(2)
    ticket.members[0].order = "global_halt"
    bench.serve(1)
    result = ticket.future.result(timeout=0)
    assert (result.run.halt_reason, result.run.step_idx) == ("global_halt", 2)
    np.testing.assert_allclose(result.answer.array, 90.0 * (1 - 0.5**2))


def test_a_limit_that_moves_ends_a_running_run_before_its_next_step():
    bench = Bench(slots=1)
    ticket = bench.ask(90.0)
    bench.serve(2)
    spent_uatp = ticket.members[0].spent_uatp
    ticket.members[0].limit = spent_uatp + 1
    bench.serve(1)
    result = ticket.future.result(timeout=0)
    assert (result.run.halt_reason, result.run.step_idx) == ("budget", 2)


def test_newcomers_do_not_make_a_run_miss_its_deadline():
    bench = Bench(slots=2)
    bench.plugin.encode = _taking(bench, bench.plugin.encode, 4 * STEP_NS)
    bench.refiner.warm_up()
    urgent = bench.ask(90.0, deadline_ns=bench.clock.monotonic_ns() + 9 * STEP_NS)
    bench.serve(2)
    bench.ask(90.0)
    bench.serve()
    result = urgent.future.result(timeout=0)
    assert result.run.halt_reason == "timeout"
    assert bench.ended_ns[urgent.request_id] <= urgent.deadline_ns


def _taking(bench, encode, duration_ns):
    def slow(inputs):
        bench.clock.advance(duration_ns / 1e9)
        return encode(inputs)

    return slow


def test_a_newer_frame_of_a_stream_takes_the_place_of_one_that_waits():
    bench = Bench(slots=1)
    bench.ask(90.0)
    bench.serve(1)
    stream = {"stream_id": "cam", "keeps_latest": True}
    old = bench.ask(1.0, options=stream)
    other = bench.ask(2.0, options={"stream_id": "lidar", "keeps_latest": True})
    new = bench.ask(3.0, options=stream)
    with pytest.raises(SupersededError, match="cam"):
        old.future.result(timeout=0)
    bench.serve()
    assert old.members[0].has_ended
    for ticket, target in ((new, 3.0), (other, 2.0)):
        np.testing.assert_allclose(ticket.future.result(timeout=0).answer.array, target, rtol=0.05)


def test_a_step_that_does_not_return_is_told_of_and_does_not_keep_the_service_from_ending(monkeypatch):
    monkeypatch.setattr("sage_edge.orchestrator.worker._GIVE_UP_S", 0.05)
    never, begun = threading.Event(), threading.Event()
    bench = Bench()
    bench.plugin._before_step = lambda: (begun.set(), never.wait())
    bench.worker.start()
    lost = bench.ask(4.0)
    assert begun.wait(10)
    assert not bench.worker.is_stuck
    bench.clock.advance(11.0)
    assert bench.worker.is_stuck
    bench.room.close()
    bench.worker.join(0.0)
    with pytest.raises(EngineError, match="a step did not return before the service ended"):
        lost.future.result(timeout=0)
    never.set()
    bench.worker._thread.join(10)
    assert not bench.worker.is_stuck


@pytest.mark.parametrize(("promise", "words"), [("high", "expected a float"), (2.0, "expected 0 to 1")])
def test_a_promise_that_is_none_fails_its_request_and_nobody_waits_for_ever(promise, words):
    bench = Bench()
    bench.plugin.trust = lambda E_norm: promise
    lost = bench.ask(4.0)
    bench.room.close()
    bench.worker.join(10)
    with pytest.raises(PluginError, match=words):
        lost.future.result(timeout=0)
