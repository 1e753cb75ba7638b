"""A plugin of the protocol's own methods in slots: what it overrides is obeyed, what it breaks is its own."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest

from sage_edge import AnnealedNoise, Answer, HaltPolicy, Invariants, IRPState, native, refine
from sage_edge.errors import ParameterError, PluginError
from sage_edge.irp.latent import compiled_rule
from sage_edge.runtime import CpuRefiner, Job, Unled, open_slots
from sage_edge.runtime.state_slots import KEPT_STREAMS, TICK_NS, StateSlots
from tests.fakes import FakeClock
from tests.seed_plugins import Counting, Halving

ENDLESS = HaltPolicy(eps=0.0, K=2, max_steps=1000)


class Bench:
    """A refiner of a plugin, and what it adds to the telemetry."""

    def __init__(self, plugin, slots=3, history=2, clock=None):
        self.plugin = plugin
        self.added = {}
        self.ring = native.Ring(4096)
        self.reader = native.RingReader(self.ring)
        self.states = open_slots(plugin, capacity=slots, threads=1, history=history, annotate=self._annotate)
        self.refiner = CpuRefiner(
            self.states,
            plugin.example,
            ring=self.ring,
            plugin_number=0,
            now_ns=(clock or FakeClock()).monotonic_ns,
        )

    def _annotate(self, run_id, step_idx, extra):
        self.added[run_id, step_idx] = extra

    def run(self, *jobs):
        """Refine to the end; by run."""
        waiting, finished = list(jobs), {}
        while waiting or self.refiner.live:
            count = self.refiner.free
            ended = self.refiner.admit(waiting[:count]) + self.refiner.tick()
            del waiting[:count]
            finished |= {done.job.run_id: done for done in ended}
        return finished


def jobs(plugin, targets, **options):
    return [Job(n, np.full(4, target), plugin.halting, **options) for n, target in enumerate(targets)]


def test_a_plugin_of_three_methods_ends_as_in_the_reference_loop_whatever_slot_it_had():
    plugin = Halving()
    bench = Bench(plugin)
    assert isinstance(bench.states, StateSlots)
    finished = bench.run(*jobs(plugin, np.logspace(-2, 2, 11)))
    records = bench.reader.drain(4096)
    for number, target in enumerate(np.logspace(-2, 2, 11)):
        reference, done = refine(plugin, np.full(4, target)), finished[number]
        assert done.summary.halt_reason == reference.halt_reason
        np.testing.assert_array_equal(done.answer.array, reference.best.x)
        mine = records[records["run_id"] == number]
        np.testing.assert_allclose(mine["E"], reference.energies, rtol=1e-6)


def test_every_override_is_called_once_for_each_state_and_obeyed():
    plugin = Counting()
    bench = Bench(plugin)
    (done,) = bench.run(Job(0, np.full(4, 9.0), compiled_rule(plugin))).values()
    assert (done.summary.halt_reason, done.summary.step_idx) == ("confidence", 4)
    np.testing.assert_array_equal(done.answer.array, np.full(4, 3.0))  # projected, where the target is not
    states = 5
    for method in ("energy", "project", "feasible", "gap", "halt", "emit_telemetry"):
        assert plugin.calls[method] == states, method
    assert plugin.calls["init_state"] == plugin.calls["decode"] == 1
    assert plugin.calls["step"] == states - 1
    assert [bench.added[0, step]["distance"] for step in range(5)] == pytest.approx(
        [9.0, 6.0, 6.0, 6.0, 6.0], rel=0.3
    )


@pytest.mark.parametrize("method", ["project", "feasible", "gap", "halt", "emit_telemetry"])
def test_a_method_that_is_set_on_the_plugin_itself_is_obeyed(method):
    plugin, asked = Halving(), []
    default = getattr(plugin, method)
    setattr(plugin, method, lambda *args: asked.append(method) or default(*args))
    [done] = Bench(plugin).run(*jobs(plugin, [1.0])).values()
    assert len(asked) == done.summary.step_idx + 1


def test_the_limits_of_a_request_hold_whatever_halt_says():
    plugin = Counting()
    (done,) = Bench(plugin).run(Job(0, np.full(4, 9.0), plugin.halting.replace(max_steps=2))).values()
    assert (done.summary.halt_reason, done.summary.step_idx) == ("max_steps", 2)


def test_a_plugin_may_end_a_run_at_its_first_state():
    class Done(Halving):
        def halt(self, history, state=None):
            return "feasible"

    plugin = Done()
    (done,) = Bench(plugin).run(Job(0, np.ones(4), plugin.halting)).values()
    assert (done.summary.halt_reason, done.summary.step_idx) == ("feasible", 0)


BROKEN = {
    "init_state": lambda self, x0, ctx: 1 / 0,
    "energy": lambda self, state: "low",
    "step": lambda self, state, noise: np.zeros(4),
    "project": lambda self, state: IRPState(state.x, 7, state.meta) if state.step_idx else state,
    "feasible": lambda self, state: {}["missing"],
    "gap": lambda self, state: None,
    "halt": lambda self, history, state=None: "bored",
    "decode": lambda self, state: "an answer",
    "emit_telemetry": lambda self, state, history: {"array": np.zeros(3)},
}
WORDS = {
    "init_state": "raised ZeroDivisionError",
    "energy": "expected a float, got str",
    "step": "expected an IRPState, got ndarray",
    "project": "expected step_idx 1, got 7",
    "feasible": "raised KeyError",
    "gap": "expected a float, got NoneType",
    "halt": "expected None or one of .*, got 'bored'",
    "decode": "expected an Answer or an array, got str",
    "emit_telemetry": r"expected null, a boolean, .* got ndarray",
}


@pytest.mark.parametrize("method", BROKEN)
def test_a_method_that_breaks_the_contract_fails_its_own_run_and_names_itself(method):
    def sometimes(self, *arguments):
        kind = Counting if method != "init_state" else Halving
        subject = arguments[0]
        target = subject if isinstance(subject, np.ndarray) else None
        if isinstance(subject, IRPState):
            target = subject.meta["target"]
        if method == "halt":
            target = arguments[1].meta["target"]
        broken = target is not None and target[0] == 666.0
        return BROKEN[method](self, *arguments) if broken else getattr(kind, method)(self, *arguments)

    plugin = type("Broken", (Counting,), {method: sometimes})()
    bench = Bench(plugin)
    finished = bench.run(*jobs(plugin, [1.0, 666.0, 2.0, 666.0, 3.0]))
    sound = Bench(Counting()).run(*jobs(plugin, [1.0, 2.0, 3.0]))
    for number, twin in ((0, 0), (2, 1), (4, 2)):
        np.testing.assert_array_equal(finished[number].answer.array, sound[twin].answer.array)
        assert finished[number].error is None
    for number in (1, 3):
        assert finished[number].answer is None
        assert isinstance(finished[number].error, PluginError)
        with pytest.raises(PluginError, match=rf"^counting\.{method}(\.array)?: {WORDS[method]}"):
            raise finished[number].error
    assert bench.refiner.live == 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer([1, 2]), "expected an Answer or an array, got list"),
        (Answer(np.full((2, 2), 2, np.uint8), ("a", "b"), ((0, 0, 0),) * 2), "numbers below 2, .* up to 2"),
        (Answer(np.zeros((2, 2)), ("a",), ((0, 0, 0),)), r"expected uint8 .* got float64 \[2, 2\]"),
        (Answer(np.zeros((2, 2), np.uint8), ("a", "b"), ((0, 0, 0),)), "a colour and a name for each"),
    ],
)
def test_an_answer_that_is_none_fails_its_own_run(answer, words):
    class Drawing(Halving):
        def decode(self, state):
            return answer

    (done,) = Bench(Drawing()).run(Job(0, np.ones(4), Halving.halting)).values()
    with pytest.raises(PluginError, match=rf"^halving\.decode: .*{words}"):
        raise done.error


def test_an_input_error_of_a_plugin_reaches_the_caller_as_it_is():
    class Picky(Halving):
        def init_state(self, x0, task_ctx):
            raise ParameterError("target: expected less")

    plugin = Picky()
    (done,) = Bench(plugin).run(Job(0, np.ones(4), plugin.halting)).values()
    assert isinstance(done.error, ParameterError)
    assert done.summary is None


def test_a_failed_step_ends_its_run_in_the_telemetry_too():
    class Stumbling(Halving):
        def step(self, state, noise_schedule):
            if state.step_idx == 2:
                raise RuntimeError("stumbled")
            return super().step(state, noise_schedule)

    plugin = Stumbling()
    bench = Bench(plugin)
    bench.run(Job(0, np.ones(4), ENDLESS))
    records = bench.reader.drain(100)
    assert records["step_idx"].tolist() == [0, 1, 2, 2]
    assert native.HALT_REASONS[records["halt_reason"][-1]] == "error"


def test_an_energy_that_is_no_number_ends_the_run_with_the_best_state_before():
    class Lost(Halving):
        def energy(self, state):
            return float("nan") if state.step_idx == 3 else super().energy(state)

    plugin = Lost()
    (done,) = Bench(plugin).run(Job(0, np.full(4, 8.0), ENDLESS)).values()
    assert (done.summary.halt_reason, done.summary.best_step) == ("diverged", 2)
    np.testing.assert_array_equal(done.answer.array, np.full(4, 6.0))


class Straying(Halving):
    """Goes astray at its third step, once.

    State space: float64 [n].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target.
    Coherence contribution: the fall of that distance.
    """

    def step(self, state, noise_schedule):
        moved = super().step(state, noise_schedule)
        if state.step_idx != 2:
            return moved
        return IRPState(np.full(4, 1e6), moved.step_idx, moved.meta)


def test_a_run_that_goes_astray_goes_on_from_its_best_state():
    plugin = Straying()
    bench = Bench(plugin)
    policy = ENDLESS.replace(rewinds=2, rise=1.0, max_steps=6)
    (done,) = bench.run(Job(0, np.full(4, 8.0), policy)).values()
    assert (done.summary.rewinds, done.summary.step_idx) == (1, 6)
    # Two steps before and three behind the rewind halved the distance.
    np.testing.assert_allclose(done.answer.array, np.full(4, 8.0 * (1 - 0.5**5)))


def test_halt_is_told_of_the_path_and_not_of_what_was_abandoned():
    seen = []

    class Watching(Straying):
        def halt(self, history, state=None):
            seen.append((state.step_idx, len(history), max(history)))

    plugin = Watching()
    Bench(plugin).run(Job(0, np.full(4, 8.0), ENDLESS.replace(rewinds=1, rise=1.0, max_steps=5)))
    assert [(step, count) for step, count, _ in seen] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 4), (5, 5)]
    assert max(worst for step, _, worst in seen if step > 3) == 64.0


def test_branches_start_from_noise_that_their_seed_alone_decides():
    plugin = Halving()
    finished = Bench(plugin).run(
        *(Job(n, np.ones(4), ENDLESS.replace(max_steps=0), seed=s) for n, s in enumerate((None, 7, 7, 8)))
    )
    starts = [finished[n].answer.array for n in range(4)]
    assert (starts[0] == 0).all()
    np.testing.assert_array_equal(starts[1], starts[2])
    np.testing.assert_allclose(starts[1], np.random.default_rng(7).standard_normal(4))
    assert (starts[1] != starts[3]).any()


class Warm(Halving):
    """Begins where its stream's last request ended.

    State space: float64 [n].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target.
    Coherence contribution: the fall of that distance.
    """

    def __init__(self, config=None):
        super().__init__(config)
        self.contexts = []

    def init_state(self, x0, task_ctx):
        self.contexts.append(task_ctx)
        state = super().init_state(x0, task_ctx)
        last = task_ctx.last_answer
        return state if last is None else IRPState(last.x, 0, state.meta)


def test_the_next_request_of_a_stream_is_told_what_the_last_one_left():
    plugin = Warm()
    bench = Bench(plugin, slots=1)
    target = np.full(4, 8.0)

    def steps(run_id, stream_id):
        job = Job(run_id, target, plugin.halting.replace(K=1), stream_id=stream_id)
        return bench.run(job)[run_id].summary.step_idx

    anew = steps(0, "camera")
    assert [steps(1, "camera"), steps(2, None), steps(3, "camera"), steps(4, "other")] == [1, anew, 1, anew]
    first, second = plugin.contexts[:2]
    assert (first.stream_id, first.last_answer, first.last_state) == ("camera", None, None)
    assert second.last_answer.step_idx == second.last_state.step_idx == anew


def test_streams_that_were_not_used_for_longest_are_forgotten():
    plugin = Warm()
    bench = Bench(plugin, slots=1)
    short = plugin.halting.replace(max_steps=0)
    for number in range(KEPT_STREAMS + 1):
        bench.run(Job(number, np.ones(4), short, stream_id=f"s{number}"))
    bench.run(Job(-1 % 2**32, np.ones(4), short, stream_id="s0"))
    assert plugin.contexts[-1].last_answer is None
    bench.run(Job(1, np.ones(4), short, stream_id=f"s{KEPT_STREAMS}"))
    assert plugin.contexts[-1].last_answer is not None


def test_a_step_is_handed_the_schedule_and_can_ask_it_for_its_noise():
    asked = []

    class Noisy(Halving):
        invariants = Invariants("vector", "gaussian", "distance", "squared units", "used")
        noise_schedule = AnnealedNoise(sigma=4.0, ratio=0.5, least=0.75)

        def step(self, state, noise_schedule):
            asked.append(noise_schedule(state.step_idx))
            return super().step(state, noise_schedule)

    plugin = Noisy()
    Bench(plugin).run(Job(0, np.ones(4), ENDLESS.replace(max_steps=5)))
    assert asked == [4.0, 2.0, 1.0, 0.75, 0.75]


def test_a_peek_shows_the_best_state_so_far_and_leaves_the_stream_as_it_is():
    plugin = Warm()
    bench = Bench(plugin, slots=1)
    bench.refiner.admit([Job(0, np.full(4, 8.0), ENDLESS, stream_id="camera")])
    for steps in range(1, 4):
        bench.refiner.tick()
        shown = bench.refiner.peek(0)
        np.testing.assert_array_equal(shown.answer.array, np.full(4, 8.0 * (1 - 0.5**steps)))
        assert shown.summary.halt_reason is None
    bench.refiner.abort("error")
    bench.run(Job(1, np.ones(4), ENDLESS.replace(max_steps=0), stream_id="camera"))
    assert plugin.contexts[-1].last_answer is None


def test_nothing_of_a_run_that_has_ended_is_kept_in_the_slots():
    import gc
    import weakref

    class Frame(np.ndarray):
        pass

    plugin = Halving()
    bench = Bench(plugin)
    frames = [np.full(4, value).view(Frame) for value in (1.0, 2.0, 3.0)]
    kept = [weakref.ref(frame) for frame in frames]
    bench.run(*(Job(n, frame, plugin.halting) for n, frame in enumerate(frames)))
    del frames
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3


def test_an_order_ends_a_run_between_two_steps():
    class Stop(Unled):
        def observe(self, E, spent_us):
            self.order = "cancelled" if E < 10 else None

    plugin = Halving()
    bench = Bench(plugin)
    done = bench.run(Job(0, np.full(4, 8.0), ENDLESS, Stop()), Job(1, np.full(4, 8.0), plugin.halting))
    assert (done[0].summary.halt_reason, done[0].answer) == ("cancelled", None)
    assert isinstance(done[1].answer, Answer)


class Sized(Halving):
    """Halving whose inputs of more than four numbers take a step that does not end before it is let go.

    State space: float64 [n].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target.
    Coherence contribution: the fall of that distance.
    """

    def __init__(self, config=None):
        super().__init__(config)
        self.may_go = threading.Event()

    def input_size(self, x0):
        return float(len(x0))

    def step(self, state, noise_schedule):
        if len(state.x) > 4:
            assert self.may_go.wait(60), "nobody let the step go"
        return super().step(state, noise_schedule)


class Beside:
    """A bench of Sized that has seen small inputs, and has a large one in a slot whose step does not end."""

    def __init__(self, slots=3, **limits):
        self.clock = FakeClock()
        self.plugin = Sized()
        self.bench = Bench(self.plugin, slots=slots, clock=self.clock)
        self.refiner = self.bench.refiner
        self.bench.run(*jobs(self.plugin, [1.0]))
        self.large = Job(100, np.full(64, 8.0), ENDLESS.replace(max_steps=2, **limits), size=64.0)
        self.refiner.admit([self.large])
        assert self.refiner.tick() == []

    def tick_until(self, is_over):
        """Tick until something has ended that is what is waited for."""
        ended = []
        while not any(is_over(done) for done in ended):
            ended += self.refiner.tick()
        return ended


def test_a_step_that_lasts_keeps_nobody_else_waiting():
    beside = Beside()
    small = Job(1, np.full(4, 8.0), beside.plugin.halting, size=4.0)
    beside.refiner.admit([small])
    ended = beside.tick_until(lambda done: done.job is small)
    reference = refine(beside.plugin, small.x0)
    assert [done.summary.halt_reason for done in ended] == [reference.halt_reason]
    np.testing.assert_array_equal(ended[0].answer.array, reference.best.x)
    assert beside.refiner.live == 1
    beside.plugin.may_go.set()
    (last,) = beside.tick_until(lambda done: done.job is beside.large)
    assert (last.summary.halt_reason, last.summary.step_idx) == ("max_steps", 2)
    np.testing.assert_allclose(last.answer.array, np.full(64, 6.0))


def test_a_run_whose_step_lasts_beyond_its_deadline_gets_its_best_answer_by_then():
    beside = Beside(deadline_ns=10**9)
    beside.clock.advance(0.9)
    assert beside.refiner.tick() == []
    beside.clock.advance(0.099)
    (done,) = beside.refiner.tick()
    assert (done.summary.halt_reason, done.summary.step_idx) == ("timeout", 0)
    np.testing.assert_array_equal(done.answer.array, np.zeros(64))
    beside.plugin.may_go.set()


def test_a_newcomer_does_not_end_a_run_whose_step_is_under_way_before_its_time():
    beside = Beside(deadline_ns=10 * 10**9)
    beside.clock.advance(2.0)
    beside.plugin.may_go.set()
    while beside.refiner.peek(100).summary.step_idx == 0:
        assert beside.refiner.tick() == []
    beside.plugin.may_go.clear()
    assert beside.refiner.tick() == []  # the second step, of which two seconds are known now
    beside.clock.advance(7.0)
    assert beside.refiner.make_way([Job(1, np.full(4, 8.0), beside.plugin.halting, size=4.0)]) == []
    beside.plugin.may_go.set()
    (last,) = beside.tick_until(lambda done: done.job is beside.large)
    assert last.summary.halt_reason == "max_steps"


def test_a_step_that_was_left_behind_takes_its_slot_until_it_ends():
    beside = Beside(slots=2, deadline_ns=10**9)
    beside.clock.advance(2.0)
    beside.refiner.tick()
    assert (beside.refiner.live, beside.refiner.free, beside.refiner.apart_since_ns) == (0, 1, 0)
    small = Job(1, np.full(4, 8.0), beside.plugin.halting, size=4.0)
    beside.refiner.admit([small])
    assert beside.refiner.free == 0
    beside.tick_until(lambda done: done.job is small)
    beside.plugin.may_go.set()
    while beside.refiner.free < 2:
        beside.refiner.tick()
    assert beside.refiner.apart_since_ns is None


def test_an_order_ends_a_run_whose_step_is_under_way():
    follower = Unled()
    beside = Beside()
    beside.refiner.admit([Job(7, np.full(64, 8.0), ENDLESS, follower, size=64.0)])
    assert beside.refiner.tick() == []
    follower.order = "global_halt"
    (done,) = beside.refiner.tick()
    assert (done.job.run_id, done.summary.halt_reason, done.summary.step_idx) == (7, "global_halt", 0)
    beside.plugin.may_go.set()


def test_a_step_that_fails_on_a_thread_of_its_own_fails_its_own_run():
    class Falling(Sized):
        def step(self, state, noise_schedule):
            moved = super().step(state, noise_schedule)
            return 1 / 0 if len(state.x) > 4 else moved

    plugin = Falling()
    plugin.may_go.set()
    bench = Bench(plugin)
    small = jobs(plugin, [1.0, 2.0])
    done = bench.run(small[0], small[1], Job(9, np.ones(64), plugin.halting, size=64.0))
    with pytest.raises(PluginError, match=r"^halving\.step: raised ZeroDivisionError"):
        raise done[9].error
    assert [done[n].error for n in (0, 1)] == [None, None]


def test_a_tick_is_short_however_many_are_live_and_every_run_has_its_turn():
    clock, taken = FakeClock(), Counter()

    class Slow(Halving):
        def step(self, state, noise_schedule):
            clock.advance(0.0015)
            taken[float(state.meta["target"][0])] += 1
            return super().step(state, noise_schedule)

    plugin, count = Slow(), 16
    bench = Bench(plugin, slots=count, clock=clock)
    bench.refiner.admit([Job(n, np.full(4, 1.0 + n), ENDLESS) for n in range(count)])
    for _ in range(33):
        start_ns = clock.monotonic_ns()
        bench.refiner.tick()
        assert clock.monotonic_ns() - start_ns <= TICK_NS + 1_500_000
    assert len(taken) == count
    assert max(taken.values()) - min(taken.values()) <= 1


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_what_runs_are_charged_adds_up_to_the_time_that_their_steps_took(slots):
    clock = FakeClock()

    class Slow(Halving):
        def step(self, state, noise_schedule):
            clock.advance(0.0015)
            return super().step(state, noise_schedule)

    plugin = Slow()
    bench = Bench(plugin, slots=slots, clock=clock)
    done = bench.run(*(Job(n, np.full(4, 1.0 + n), ENDLESS.replace(max_steps=1 + n)) for n in range(slots)))
    steps = sum(one.summary.step_idx for one in done.values())
    spent_us = sum(one.summary.spent_us for one in done.values())
    assert spent_us == pytest.approx(1500.0 * steps)
