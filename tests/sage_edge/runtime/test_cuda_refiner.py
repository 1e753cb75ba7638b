"""What the GPU's refiner has of its own; what both refiners keep is in tests/contract/test_refiners.py."""

from __future__ import annotations

import numpy as np
import pytest

from sage_edge import native
from sage_edge.errors import ConfigError, DeviceError
from sage_edge.runtime import CudaLoops, CudaRefiner, Job, Unled
from tests.fakes import FakeClock
from tests.host_loop import HostLoops
from tests.quadratic import DeviceQuadratic, device_program

pytestmark = pytest.mark.skipif(not native.BUILT_WITH_CUDA, reason="needs a build with a CUDA compiler")
SIZE = 6
ENDLESS = native.HaltPolicy(eps=0.0, K=2, max_steps=1000)
STEP_S = 0.001


class Recorder(Unled):
    """Remembers what it was told to be spent."""

    def __init__(self):
        self.seen = []

    def observe(self, E, spent_us):
        self.seen.append(spent_us)


class Bench:
    """A refiner of three slots over the CPU's twin of the loop."""

    def __init__(self, records=1024):
        self.clock = FakeClock()
        self.fault = None
        self.batches = []
        self.plugin = DeviceQuadratic(size=SIZE, before_step=self._step)
        encode = self.plugin.encode
        self.plugin.encode = lambda inputs: self.batches.append(len(inputs)) or encode(inputs)
        loops = HostLoops(self.clock.monotonic_ns)
        ring = loops.make_ring(records)
        self.refiner = CudaRefiner(
            device_program(self.plugin),
            loops,
            ring,
            slots=3,
            plugin_number=0,
            now_ns=self.clock.monotonic_ns,
        )
        (self.loop,) = loops.made
        self.refiner.warm_up()
        self.batches.clear()

    def _step(self):
        self.clock.advance(STEP_S)
        if self.fault is not None:
            raise self.fault

    def admit(self, count, policy=ENDLESS, **options):
        first = 100 + len(self.batches)
        return self.refiner.admit([Job(first + n, np.ones(SIZE, np.float32), policy) for n in range(count)])


@pytest.fixture
def bench():
    return Bench()


def test_more_than_the_slots_are_taken_and_wait_on_the_device(bench):
    bench.admit(5)
    bench.refiner.tick()
    assert (bench.refiner.live, bench.refiner.free, bench.loop.most_live) == (5, 1, 3)


def test_no_engine_is_given_more_rows_than_there_are_slots(bench):
    bench.admit(5, ENDLESS.replace(max_steps=0))
    assert bench.batches == [3, 2]
    assert len(bench.refiner.tick()) == 5


def test_who_waits_for_a_slot_is_cancelled_at_once_or_answered_at_its_deadline(bench):
    bench.admit(3)
    follower = Unled()
    due_ns = bench.clock.monotonic_ns() + int(60.5 * STEP_S * 1e9)
    jobs = [Job(1, np.ones(SIZE, np.float32), ENDLESS, follower)]
    jobs += [Job(2, np.ones(SIZE, np.float32), ENDLESS.replace(deadline_ns=due_ns))]
    bench.refiner.admit(jobs)
    follower.order = "cancelled"
    (cancelled,) = bench.refiner.tick()
    assert (cancelled.job.run_id, cancelled.answer) == (1, None)
    ended = []
    while not ended:
        ended = bench.refiner.tick()
    assert (ended[0].job.run_id, ended[0].summary.halt_reason, ended[0].summary.step_idx) == (2, "timeout", 0)
    assert ended[0].answer is not None
    assert bench.clock.monotonic_ns() <= due_ns
    assert bench.refiner.peek(2) is None


def test_a_waiting_run_has_nothing_to_show_yet(bench):
    bench.admit(3)
    bench.refiner.admit([Job(1, np.ones(SIZE, np.float32), ENDLESS)])
    bench.refiner.tick()
    assert bench.refiner.peek(1) is None


def test_an_engine_that_fails_once_fails_those_who_are_there_and_nobody_else(bench):
    bench.admit(2)
    bench.fault = RuntimeError("a broken kernel")
    with pytest.raises(RuntimeError, match="broken kernel"):
        bench.refiner.tick()
    bench.fault = None
    assert len(bench.refiner.abort("error")) == 2
    assert not bench.refiner.has_failed
    bench.admit(1, ENDLESS.replace(max_steps=2))
    bench.refiner.tick()
    (done,) = bench.refiner.tick()
    assert done.summary.halt_reason == "max_steps"


@pytest.mark.parametrize("error", [DeviceError("cudaStreamQuery: a test"), RuntimeError("a broken engine")])
def test_a_device_that_goes_on_failing_takes_nobody_any_more_and_says_so(bench, error):
    bench.admit(2)
    bench.loop.fault = error
    with pytest.raises(type(error)):
        bench.refiner.tick()
    assert len(bench.refiner.abort("error")) == 2
    assert bench.refiner.has_failed
    assert (bench.refiner.live, bench.refiner.free) == (0, 6)
    with pytest.raises(DeviceError, match="restart the service"):
        bench.admit(1)


def test_followers_know_what_was_spent_even_when_the_mailbox_was_overrun(caplog):
    bench = Bench(records=2)
    followers = [Recorder() for _ in range(3)]
    policy = ENDLESS.replace(max_steps=5)
    bench.refiner.admit([Job(n, np.ones(SIZE, np.float32), policy, followers[n]) for n in range(3)])
    finished = []
    while bench.refiner.live:
        finished += bench.refiner.tick()
    assert "followers missed" in caplog.text
    for done in finished:
        assert followers[done.job.run_id].seen[-1] == done.summary.spent_us


def test_it_never_goes_back_to_an_earlier_state(bench):
    assert not bench.refiner.can_rewind
    assert bench.refiner.history_bytes == 3 * SIZE * 4  # the best states alone


def test_it_says_how_its_ticks_follow_each_other_and_why(bench):
    assert (bench.refiner.mode, bench.refiner.mode_reason) == ("launches", "a test")


def test_a_loop_needs_a_mapped_ring_and_sizes_that_fit():
    with pytest.raises(ConfigError, match="at least 8 rows, got 4"):
        CudaLoops().make_loop(
            device_program(DeviceQuadratic(size=SIZE)),
            native.Ring(64),
            widths=[2, 8],
            rows=4,
            plugin_number=0,
        )


@pytest.mark.skipif(native.device_count() > 0, reason="there is a GPU here")
def test_without_a_device_it_says_why_there_is_no_loop():
    assert CudaLoops().why_not() == native.cuda_refusal() != ""
