"""Both refiners keep one contract: on the host, and on a loop that keeps the device's promises on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from sage_edge import Carried, native, refine
from sage_edge.runtime import CpuRefiner, CudaRefiner, Job, Unled, open_slots
from tests.fakes import FakeClock
from tests.host_loop import HostLoops
from tests.quadratic import DeviceQuadratic, device_program

SLOTS = 3
STEP_US = 1000.0
#: Never converges: a budget, a limit or an order ends it.
ENDLESS = native.HaltPolicy(eps=0.0, K=2, max_steps=1000)


class Bench:
    """A refiner on a clock that only its engines move: a step takes STEP_US, and so does an encoder."""

    def __init__(self, kind):
        self.clock = FakeClock()
        self.plugin = DeviceQuadratic(before_step=lambda: self.clock.advance(STEP_US / 1e6))
        encode = self.plugin.encode

        def slow_encode(inputs):
            self.clock.advance(STEP_US / 1e6)
            return encode(inputs)

        self.plugin.encode = slow_encode
        options = {"plugin_number": 5, "now_ns": self.clock.monotonic_ns}
        if kind == "host":
            ring = native.Ring(1024)
            states = open_slots(self.plugin, capacity=SLOTS, threads=1, history=0)
            self.refiner = CpuRefiner(states, self.plugin.example, ring=ring, **options)
        else:
            self.loops = HostLoops(self.clock.monotonic_ns)
            ring = self.loops.make_ring(1024)
            self.refiner = CudaRefiner(device_program(self.plugin), self.loops, ring, slots=SLOTS, **options)
        self.reader = native.RingReader(ring)
        self.refiner.warm_up()

    def run(self, jobs, ticks=200):
        """Refine to the end, slots being refilled as they come free; by run."""
        waiting, finished = list(jobs), {}
        for _ in range(ticks):
            count = min(self.refiner.free, len(waiting))
            taken = waiting[:count]
            ended = self.refiner.make_way(taken) + self.refiner.admit(taken) + self.refiner.tick()
            del waiting[:count]
            finished |= {done.job.run_id: done for done in ended}
            if not waiting and not self.refiner.live:
                return finished
        raise AssertionError("not all have ended")


@pytest.fixture(
    params=[
        "host",
        pytest.param(
            "device",
            marks=pytest.mark.skipif(not native.BUILT_WITH_CUDA, reason="needs a build with a CUDA compiler"),
        ),
    ]
)
def bench(request):
    return Bench(request.param)


class Recorder(Unled):
    """A follower that remembers what it was told, and steers by what it was told."""

    def __init__(self, after=lambda seen: None):
        self.seen = []
        self._after = after

    def observe(self, E, spent_us):
        self.seen.append((E, spent_us))
        self._after(self)


def targets(count):
    rng = np.random.default_rng(3)
    return [rng.normal(0, scale, 6).astype(np.float32) for scale in np.logspace(-1, 2, count)]


def test_every_job_ends_as_in_the_reference_loop_whatever_slot_it_had(bench):
    inputs = targets(11)
    finished = bench.run([Job(n, x0, bench.plugin.halting) for n, x0 in enumerate(inputs)])
    records = bench.reader.drain(1024)
    for number, x0 in enumerate(inputs):
        reference, done = refine(bench.plugin, x0), finished[number]
        assert done.summary.halt_reason == reference.halt_reason
        assert done.summary.best_step == reference.best.step_idx
        mine = records[records["run_id"] == number]
        np.testing.assert_allclose(mine["E"], reference.energies, rtol=1e-6)
        assert set(mine["plugin"]) == {5}
        np.testing.assert_allclose(done.answer.array, reference.best.x, rtol=1e-6)
    assert (bench.refiner.live, bench.refiner.free) == (0, bench.refiner.capacity)


def test_it_takes_as_many_as_it_says(bench):
    refiner = bench.refiner
    assert refiner.slots == SLOTS <= refiner.capacity == refiner.free
    refiner.admit([Job(n, x0, ENDLESS) for n, x0 in enumerate(targets(refiner.capacity))])
    assert (refiner.live, refiner.free) == (refiner.capacity, 0)
    assert refiner.abort("error")
    assert (refiner.live, refiner.free) == (0, refiner.capacity)


def test_a_follower_is_told_of_every_state_once_as_its_records_have_it(bench):
    followers = [Recorder() for _ in range(7)]
    jobs = [Job(n, x0, bench.plugin.halting, followers[n]) for n, x0 in enumerate(targets(7))]
    finished = bench.run(jobs)
    records = bench.reader.drain(1024)
    for number, follower in enumerate(followers):
        mine = records[records["run_id"] == number]
        told = np.array(follower.seen, np.float32)
        np.testing.assert_array_equal(told, np.stack([mine["E"], mine["spent_us"]], axis=1))
        assert len(told) == finished[number].summary.step_idx + 1


def test_what_was_spent_is_the_encoder_and_a_share_of_every_step(bench):
    done = bench.run([Job(0, targets(1)[0], ENDLESS.replace(max_steps=4))])[0]
    assert done.summary.spent_us == pytest.approx(STEP_US + 4 * STEP_US)


def test_a_budget_ends_the_run_that_it_cannot_pay_another_step_of(bench):
    follower = Recorder()
    follower.budget_us = 4.5 * STEP_US
    done = bench.run([Job(0, targets(1)[0], ENDLESS, follower)])[0]
    assert done.summary.halt_reason == "budget"
    assert done.summary.spent_us == pytest.approx(4 * STEP_US)
    assert done.answer is not None


def test_a_budget_that_its_follower_raises_lets_a_run_go_on(bench):
    def raise_once(follower):
        if len(follower.seen) == 3:
            follower.budget_us = 8.5 * STEP_US

    follower = Recorder(raise_once)
    follower.budget_us = 4.5 * STEP_US
    done = bench.run([Job(0, targets(1)[0], ENDLESS, follower)])[0]
    assert (done.summary.halt_reason, done.summary.step_idx) == ("budget", 7)


def test_a_budget_that_is_taken_away_ends_the_run_with_at_most_one_step_more(bench):
    def take_away(follower):
        if len(follower.seen) == 4:
            follower.budget_us = 0.0

    done = bench.run([Job(0, targets(1)[0], ENDLESS, Recorder(take_away))])[0]
    assert done.summary.halt_reason == "budget"
    assert done.summary.step_idx in (3, 4)


@pytest.mark.parametrize("order", ["cancelled", "global_halt"])
def test_an_order_ends_its_run_before_the_next_step_and_no_other(bench, order):
    def give(follower):
        if len(follower.seen) == 3:
            follower.order = order

    followers = [Unled(), Recorder(give), Unled()]
    policy = ENDLESS.replace(max_steps=9)
    jobs = [Job(n, x0, policy, followers[n]) for n, x0 in enumerate(targets(3))]
    finished = bench.run(jobs)
    summary = finished[1].summary
    assert (summary.halt_reason, summary.step_idx) == (order, 2)
    assert (finished[1].answer is None) == (order == "cancelled")
    assert {finished[n].summary.halt_reason for n in (0, 2)} == {"max_steps"}
    closing = [r for r in bench.reader.drain(1024) if r["flags"] & native.FLAG_CLOSING]
    assert [(r["run_id"], native.HALT_REASONS[r["halt_reason"]]) for r in closing] == [(1, order)]


def test_an_order_that_is_there_from_the_start_leaves_the_first_state(bench):
    follower = Unled()
    follower.order = "global_halt"
    done = bench.run([Job(0, targets(1)[0], ENDLESS, follower)])[0]
    assert (done.summary.halt_reason, done.summary.step_idx) == ("global_halt", 0)
    assert (done.answer.array == 0).all()


def test_a_deadline_is_kept_with_the_best_answer_so_far(bench):
    deadline_ns = bench.clock.monotonic_ns() + int(7.5 * STEP_US * 1e3)
    done = bench.run([Job(0, targets(1)[0], ENDLESS.replace(deadline_ns=deadline_ns))])[0]
    assert done.summary.halt_reason == "timeout"
    assert 1 <= done.summary.step_idx <= 6
    assert bench.clock.monotonic_ns() <= deadline_ns


def test_who_cannot_wait_until_newcomers_are_encoded_makes_way_with_an_answer(bench):
    refiner, now_ns = bench.refiner, bench.clock.monotonic_ns()
    soon = ENDLESS.replace(deadline_ns=now_ns + int(30 * STEP_US * 1e3))
    later = ENDLESS.replace(deadline_ns=now_ns + 10**9)
    refiner.admit([Job(0, targets(1)[0], soon), Job(1, targets(1)[0], later)])
    refiner.tick()
    assert refiner.make_way([]) == []
    bench.clock.advance(25 * STEP_US / 1e6)
    (hurried,) = refiner.make_way([Job(2, targets(1)[0], later)])
    assert (hurried.job.run_id, hurried.summary.halt_reason) == (0, "timeout")
    assert hurried.answer is not None
    assert refiner.live == 1


def test_a_peek_shows_the_best_state_so_far_and_changes_nothing(bench):
    x0 = targets(3)[1]
    plain = bench.run([Job(0, x0, bench.plugin.halting)])[0]
    bench.refiner.admit([Job(1, x0, bench.plugin.halting)])
    assert bench.refiner.peek(99) is None
    shown, finished = [], []
    while not finished:
        finished = bench.refiner.tick()
        if not finished:
            shown.append(bench.refiner.peek(1))
    for steps, peek in enumerate(shown, 1):
        assert (peek.summary.step_idx, peek.summary.halt_reason) == (steps, None)
        np.testing.assert_allclose(peek.answer.array, x0 * (1 - 0.5**steps), rtol=1e-6)
    assert len(shown) == plain.summary.step_idx - 1
    assert finished[0].summary.step_idx == plain.summary.step_idx
    np.testing.assert_array_equal(finished[0].answer.array, plain.answer.array)
    assert bench.refiner.peek(1) is None


def test_a_branch_starts_from_noise_that_its_seed_alone_decides(bench):
    x0 = targets(1)[0]
    jobs = [Job(n, x0, ENDLESS.replace(max_steps=0), seed=seed) for n, seed in enumerate((None, 7, 7, 8))]
    jobs = [Job(j.run_id, j.x0, j.policy, branch=j.run_id, branches=4, seed=j.seed) for j in jobs]
    finished = bench.run(jobs)
    starts = [finished[n].answer.array for n in range(4)]
    noise = np.random.default_rng(7).standard_normal(6, np.float32)
    assert (starts[0] == 0).all()
    np.testing.assert_allclose(starts[1], noise * bench.plugin.noise_sigma)
    np.testing.assert_array_equal(starts[1], starts[2])
    assert (starts[1] != starts[3]).any()
    for n, z in enumerate(starts):
        assert pytest.approx(float(np.mean((z - x0) ** 2)), rel=1e-6) == finished[n].summary.E0
        assert finished[n].summary.branch == n


def test_the_next_request_of_a_stream_begins_where_the_last_one_ended(bench):
    bench.plugin.carry_over = lambda first, earlier: Carried(earlier.first, earlier.z)
    x0 = targets(1)[0]

    def steps(run_id, stream_id):
        job = Job(run_id, x0, bench.plugin.halting.replace(K=1), stream_id=stream_id)
        return bench.run([job])[run_id].summary.step_idx

    anew = steps(0, "camera")
    assert anew > 1
    assert [steps(1, "camera"), steps(2, None), steps(3, "camera"), steps(4, "other")] == [1, anew, 1, anew]


def test_abort_ends_everything_in_the_telemetry_too(bench):
    followers = [Recorder() for _ in range(3)]
    bench.refiner.admit([Job(n, x0, ENDLESS, followers[n]) for n, x0 in enumerate(targets(3))])
    bench.refiner.tick()
    assert bench.refiner.abort("error") == {0: "error", 1: "error", 2: "error"}
    last = {r["run_id"]: native.HALT_REASONS[r["halt_reason"]] for r in bench.reader.drain(1024)}
    assert last == {0: "error", 1: "error", 2: "error"}
    assert {len(follower.seen) for follower in followers} == {2}
    assert not bench.refiner.has_failed
    assert bench.run([Job(9, targets(1)[0], bench.plugin.halting)])


def test_warming_up_teaches_how_long_everything_takes_and_leaves_no_record(bench):
    refiner = bench.refiner
    assert refiner.tick_time.mean_ns(1) == refiner.tick_time.mean_ns(SLOTS) == STEP_US * 1e3
    assert refiner.encode_time.mean_ns(1) == STEP_US * 1e3
    assert refiner.decode_time.mean_ns() == 0  # the clock stands still while it decodes
    assert len(bench.reader.drain(10)) == 0


def test_nothing_happens_while_nobody_is_there(bench):
    assert bench.refiner.admit([]) == bench.refiner.tick() == bench.refiner.make_way([]) == []
    assert (bench.refiner.last_tick_ns, bench.refiner.last_engine_ns) == (0, 0)
    assert bench.refiner.peek(1) is None
