"""The control plugin: quadratic programs, linear MPC and plane trajectories, refined under constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge import native
from sage_edge.config import Settings
from sage_edge.control import Iterate, Problem
from sage_edge.irp import Answer, Invariants, IRPPlugin, IRPState
from sage_edge.plugins.control_documents import example_problem, read_problem
from sage_edge.runtime import FirstStates, Restored
from sage_edge.runtime.streams import Streams

#: Standard deviation of the noise model, relative to a variable's size where that is above 1.
JITTER = 0.01
#: Streams whose last iterate is kept.
STREAMS = 1024


class ControlPlugin(IRPPlugin):
    """Refine a control problem's solution; an answer keeps the constraints or says by how much it does not.

    State space: float64 [n]: primal and dual variables of a quadratic program, or the knots of a line in
    the plane. A step is ten ADMM iterations of the one, a round of sequential convexification of the other.
    Noise model: Gaussian jitter of the variables, in their own units (metres for the knots).
    Energy: of a quadratic program or MPC the decimal logarithm of its largest scaled residual (primal,
    dual, duality gap), never below -16; of a line its cost over that of the first line, broken limits added.
    Coherence contribution: a fall of this energy, over E_scale, times the plugin's trust weight.
    """

    name = "control"
    version = "1"
    invariants = Invariants(
        state_space="qp-iterate-or-plane-trajectory",
        noise_model="gaussian-waypoint-jitter",
        energy_fn="log-residual-or-relative-cost",
        energy_units="decades of residual, or cost over the first line's",
    )
    takes = "document"
    #: ``feasible`` asks for a gap of at most 0.1 % too: the first feasible iterate alone may be far off.
    halting = native.HaltPolicy(K=3, eps=1e-4, max_steps=50, halt_when_feasible=True, gap_tolerance=1e-3)
    backend = "native-cpu-fp64"
    model_sha256 = None

    @classmethod
    def from_settings(cls, settings: Settings) -> ControlPlugin:
        """The plugin; it has no settings of its own."""
        return cls()

    def trust(self, E_norm: float) -> float | None:
        """No calibration: an answer states its violation and gap instead."""
        return None

    def E_norm_for(self, quality: float) -> float:
        """Out of reach: there is no calibration."""
        return float("-inf")

    def prepare(self, frame: Mapping[str, Any]) -> Problem:
        """Check a document and make it a problem; see docs/CONTROL.md for its forms.

        Raises:
            InputError: A value is missing, unknown or unusable, or there is no way from start to goal.
        """
        return read_problem(frame)

    def open_slots(self, capacity: int, threads: int, history: int = 0) -> ControlSlots:
        """Problems side by side, whatever their kinds."""
        return ControlSlots(capacity)

    def init_state(self, x0: Problem, task_ctx: Any = None) -> IRPState:
        """The problem's first iterate."""
        return _state(x0, x0.first(), 0)

    def energy(self, state: IRPState) -> float:
        """Energy of the state's variables."""
        return _iterate(state).E

    def feasible(self, state: IRPState) -> bool:
        """Whether the state keeps its constraints to the problem's tolerance."""
        return _iterate(state).feasible

    def gap(self, state: IRPState) -> float:
        """The state's optimality gap."""
        return _iterate(state).gap

    def step(self, state: IRPState, noise_schedule: float) -> IRPState:
        """One step of the problem."""
        problem = _problem(state)
        return _state(problem, problem.step(_iterate(state)), state.step_idx + 1)

    def project(self, state: IRPState) -> IRPState:
        """Put the variables back where a projection can: between bounds, ends in place."""
        return _state(_problem(state), _iterate(state), state.step_idx)

    def decode(self, x: IRPState) -> Answer:
        """The answer of a state."""
        return _answer(_problem(x), _iterate(x))


def _state(problem: Problem, iterate: Iterate, step_idx: int) -> IRPState:
    return IRPState(iterate.x, step_idx, {"problem": problem, "iterate": iterate})


def _problem(state: IRPState) -> Problem:
    problem: Problem = state.meta["problem"]
    return problem


def _iterate(state: IRPState) -> Iterate:
    """What is known of a state; found out anew when its variables were changed since."""
    known: Iterate = state.meta["iterate"]
    return known if known.x is state.x else _problem(state).at(state.x)


def _answer(problem: Problem, iterate: Iterate) -> Answer:
    array, details = problem.answer(iterate)
    said = {
        "kind": problem.kind,
        "feasible": iterate.feasible,
        "violation": iterate.violation,
        "gap": iterate.gap if np.isfinite(iterate.gap) else None,
    }
    return Answer(array, details=said | dict(details))


class ControlSlots:
    """One problem and its iterate in each slot; the best one so far beside it.

    An iterate goes astray only when its problem has no solution, so there is nothing to go back for.

    Threads: the refiner's.
    """

    can_rewind = False
    history_bytes = 0

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._problems: list[Problem] = [example_problem()] * capacity
        self._now: list[Iterate] = [self._problems[0].first()] * capacity
        self._best = list(self._now)
        self._next: list[Iterate] = []
        self._streams: Streams[tuple[Problem, Iterate]] = Streams(STREAMS)

    def example(self) -> Problem:
        """A small problem."""
        return example_problem()

    def load(
        self,
        first: int,
        inputs: Sequence[Problem],
        seeds: Sequence[int | None] = (),
        streams: Sequence[str | None] = (),
    ) -> FirstStates:
        """The first iterates, from where its stream's last problem ended if there was one.

        A problem names its stream itself; ``streams`` is not asked.
        """
        wanted = seeds or [None] * len(inputs)
        iterates = [self._first(problem, seed) for problem, seed in zip(inputs, wanted, strict=True)]
        rows = slice(first, first + len(inputs))
        self._problems[rows] = inputs
        self._now[rows] = self._best[rows] = iterates
        return FirstStates(
            np.array([iterate.E for iterate in iterates]),
            np.array([iterate.feasible for iterate in iterates]),
            np.array([iterate.gap for iterate in iterates]),
        )

    def _first(self, problem: Problem, seed: int | None) -> Iterate:
        """The first iterate, jittered where there is a seed."""
        last = self._streams.last(problem.stream_id)
        iterate = problem.first_after(*last) if last else problem.first()
        if seed is None:
            return iterate
        noise = np.random.default_rng(seed).standard_normal(iterate.x.shape)
        return problem.at(iterate.x + JITTER * np.maximum(1.0, np.abs(iterate.x)) * noise)

    def rewind(self, slot: int, attempt: int, table: native.SlotTable) -> Restored:
        """The best iterate."""
        self._now[slot] = self._best[slot]
        return Restored(self._best[slot].E, self._best[slot].feasible)

    def advance(self, live: int) -> None:
        """One step of every live problem."""
        pairs = zip(self._problems[:live], self._now[:live], strict=True)
        self._next = [problem.step(iterate) for problem, iterate in pairs]

    def settle(
        self, table: native.SlotTable, *, now_ns: int, margin_ns: int, tick_us: float
    ) -> NDArray[np.uint8]:
        """Take the steps and let the halting rule see them."""
        for slot, successor in enumerate(self._next):
            if table.summary(slot).best_is_current:
                self._best[slot] = self._now[slot]
            self._now[slot] = successor
        return native.observe(
            table,
            np.array([iterate.E for iterate in self._next]),
            feasible=np.array([iterate.feasible for iterate in self._next], np.uint8),
            gap=np.array([iterate.gap for iterate in self._next]),
            now_ns=now_ns,
            margin_ns=margin_ns,
            tick_us=tick_us,
        )

    def answers(
        self, slots: Sequence[int], is_current: Sequence[bool], inputs: Sequence[Problem]
    ) -> list[Answer]:
        """The answers of the best iterates. The next problem of a stream goes on from the last one."""
        answers = []
        for slot, current, problem in zip(slots, is_current, inputs, strict=True):
            iterate = (self._now if current else self._best)[slot]
            self._streams.keep(problem.stream_id, (problem, self._now[slot]))
            answers.append(_answer(problem, iterate))
        return answers

    def move(self, source: int, target: int) -> None:
        """Copy one row over another."""
        self._problems[target] = self._problems[source]
        self._now[target] = self._now[source]
        self._best[target] = self._best[source]
