"""The control plugin: quadratic programs, linear MPC and plane trajectories, refined under constraints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from sage_edge import native
from sage_edge.control import Iterate, Problem
from sage_edge.inputs import DOCUMENT
from sage_edge.irp import Answer, Invariants, IRPPlugin, IRPState, NoiseSchedule, TaskContext
from sage_edge.plugins.control_documents import example_problem, needed_bytes, read_problem

#: Standard deviation of the noise model, relative to a variable's size where that is above 1.
JITTER = 0.01
#: Relative gap at which a problem is done, unless its own ``eps`` is smaller.
TOLERANCE = 1e-3


class ControlPlugin(IRPPlugin):
    """Refine a control problem's solution; an answer keeps the constraints or says by how much it does not.

    State space: float64 [n]: primal and dual variables of a quadratic program, or the knots of a line in
    the plane. A step is ten ADMM iterations of the one, a round of sequential convexification of the other.
    Noise model: Gaussian jitter of the variables, in their own units (metres for the knots).
    Energy: of a quadratic program or MPC the decimal logarithm of the larger of its relative duality gap and
    relative violation, never below -16; of a line its cost over that of the first line, broken limits added.
    Coherence contribution: a fall of this energy, over E_scale, times the plugin's trust weight.
    """

    name = "control"
    version = "1"
    invariants = Invariants(
        state_space="qp-iterate-or-plane-trajectory",
        noise_model="gaussian-waypoint-jitter",
        energy_fn="log-residual-or-relative-cost",
        energy_units="decades of gap or violation, or cost over the first line's",
    )
    takes = DOCUMENT
    #: ``feasible`` asks for a gap of at most 0.1 % too: the first feasible iterate alone may be far off.
    halting = native.HaltPolicy(K=3, eps=1e-4, max_steps=50, halt_when_feasible=True, gap_tolerance=TOLERANCE)
    noise_sigma = JITTER
    can_rewind = False  # an iterate goes astray only when its problem has no solution
    backend = "native-cpu-fp64"

    def prepare(self, frame: Mapping[str, Any]) -> Problem:
        """Check a document and make it a problem; see docs/CONTROL.md for its forms.

        Raises:
            InputError: A value is missing, unknown or unusable, or there is no way from start to goal.
        """
        return read_problem(frame)

    def input_size(self, x0: Problem) -> float:
        """Entries of the problem's matrices; of a line the square of its points."""
        return x0.size

    def needed_bytes(self, frame: Mapping[str, Any]) -> int:
        """Its matrices with their factors, its grid, its iterates, by the lengths in the document."""
        return needed_bytes(frame)

    def example(self) -> Problem:
        """A small problem."""
        return example_problem()

    def init_state(self, x0: Problem, task_ctx: TaskContext | None = None) -> IRPState:
        """The problem's first iterate, from where its stream's last problem ended if there was one."""
        last = task_ctx.last_state if task_ctx is not None else None
        iterate = x0.first() if last is None else x0.first_after(_problem(last), _iterate(last))
        return _state(x0, iterate, 0)

    def energy(self, state: IRPState) -> float:
        """Energy of the state's variables."""
        return _iterate(state).E

    def feasible(self, state: IRPState) -> bool:
        """Whether the state keeps its constraints to the problem's tolerance."""
        return _iterate(state).feasible

    def gap(self, state: IRPState) -> float:
        """The state's optimality gap, so scaled that the rule's tolerance is the problem's ``eps``."""
        return _iterate(state).gap * max(1.0, TOLERANCE / _problem(state).eps)

    def step(self, state: IRPState, noise_schedule: NoiseSchedule) -> IRPState:
        """One step of the problem."""
        problem = _problem(state)
        return _state(problem, problem.step(_iterate(state)), state.step_idx + 1)

    def project(self, state: IRPState) -> IRPState:
        """Put the variables back where a projection can: between bounds, ends in place."""
        return _state(_problem(state), _iterate(state), state.step_idx)

    def perturb(self, state: IRPState, sigma: float, rng: np.random.Generator) -> IRPState:
        """Jitter, relative to a variable's size where that is above 1."""
        x = _iterate(state).x
        noise = sigma * np.maximum(1.0, np.abs(x)) * rng.standard_normal(x.shape)
        return IRPState(x + noise, state.step_idx, state.meta)

    def decode(self, state: IRPState) -> Answer:
        """The answer of a state."""
        return _answer(_problem(state), _iterate(state))


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
        "gap": iterate.gap,
        **details,
    }
    said = orjson.loads(orjson.dumps(said, option=orjson.OPT_SERIALIZE_NUMPY))  # null for what overflowed
    return Answer(array, details=said)
