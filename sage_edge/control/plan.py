"""Plane trajectories by sequential convexification: rounds of one quadratic program each.

A round looks at the line as it is: every knot may move along its normal, within the corridor that obstacles
or edges leave (half-planes that lie outside of the discs, so that they promise too little and never too
much), and curvature and length are taken to first and second order. The step is then checked on the true
line and halved until it lowers the true cost; a step that does not is not taken. Motion in time follows
from the line exactly, so that every iterate is dynamically consistent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sage_edge import native
from sage_edge.clock import Clock, SystemClock
from sage_edge.control import line
from sage_edge.control.course import Course
from sage_edge.control.line import Curvature, Floats
from sage_edge.control.problem import Iterate, Problem, refine_problem
from sage_edge.control.timing import Motion, schedule

#: The rounds aim at this share of the curvature limit.
_AIM = 0.98
#: What a squared excess of curvature costs, over what squared curvature costs.
_EXCESS_WEIGHT = 30.0
#: What a metre inside an obstacle costs, in metres of line or in the bending of the first line.
_INTRUSION_WEIGHT = 100.0
_SHARES = (1.0, 0.5, 0.25)

#: When a plan is done: feasible with less than 0.1 % gained in a round, or three rounds within 0.01 %.
PLAN_HALTING = native.HaltPolicy(K=3, eps=1e-4, max_steps=30, halt_when_feasible=True, gap_tolerance=1e-3)


class _Local(NamedTuple):
    """A line and what a round needs to know of it."""

    knots: Floats
    normal: Floats
    bend: Curvature
    length: Floats


class PlanProblem:
    """A course as a problem: x are the knots of a line, float64 [2 n], and a step is a round.

    The energy is the cost of the line, over that of the first one: length and bending by the course's
    weights, and what breaks a limit by a larger one.
    """

    def __init__(self, course: Course) -> None:
        """Find the first line.

        Raises:
            InfeasibleError: The course has no way from start to goal.
        """
        self.course = course
        self.eps = PLAN_HALTING.gap_tolerance
        self.kind = "track" if course.closed else "plan"
        knots = course.first_line()
        plain = course.length_weight * line.lengths(knots, course.closed).sum()
        plain += course.bending_weight * line.bending(knots, course.closed)
        self._scale = max(float(plain), 1e-9)
        self.size = float(len(knots) ** 2)
        self._first = self.at(knots.ravel())

    def first(self) -> Iterate:
        """The first line."""
        return self._first

    def first_after(self, last: Problem, iterate: Iterate) -> Iterate:
        """The last line where it is better than the first one here."""
        if not isinstance(last, PlanProblem) or len(iterate.x) != len(self._first.x):
            return self._first
        return min(self._first, self.at(iterate.x), key=lambda it: (not it.feasible, it.E))

    def at(self, x: Floats) -> Iterate:
        """A line with its ends, or its knots, put in their place."""
        return self._assess(self.course.clamp(x.reshape(-1, 2)))

    def step(self, iterate: Iterate) -> Iterate:
        """One round. When no step lowers the cost, the line stays and the next round is more careful."""
        here = self._local(iterate.x.reshape(-1, 2))
        reach: float = self.course.reach_segments if iterate.carry is None else iterate.carry
        along, promised = self._solve(here, reach)
        move = along[:, None] * here.normal
        for share in _SHARES:
            moved = here.knots + share * move
            there = self._assess(self.course.clamp(line.respace(moved) if self.course.closed else moved))
            if there.E < iterate.E:
                wider = min(self.course.reach_segments, 2 * share * reach)
                return there._replace(gap=(iterate.E - there.E) / there.E, carry=wider)
        return iterate._replace(gap=promised / (iterate.E * self._scale), carry=_SHARES[-1] * reach)

    def motion(self, iterate: Iterate) -> Motion:
        """The motion along an iterate's line."""
        return schedule(iterate.x.reshape(-1, 2), self.course.limits, self.course.closed)

    def answer(self, iterate: Iterate) -> tuple[Floats, Mapping[str, Any]]:
        """Rows of time, position, velocity and acceleration: float64 [n, 7].

        The velocity is that of the segment that begins at the knot, 0 at the end of an open line.
        """
        motion = self.motion(iterate)
        count = len(motion.position)
        velocity = np.zeros((count, 2))
        velocity[: len(motion.velocity)] = motion.velocity
        rows = np.column_stack([motion.time_s[:count], motion.position, velocity, motion.acceleration])
        return rows, {
            "columns": ["time_s", "x_m", "y_m", "vx_m_s", "vy_m_s", "ax_m_s2", "ay_m_s2"],
            "trajectory": rows.tolist(),
            "duration_s": float(motion.time_s[-1]),
            "length_m": float(line.lengths(motion.position, self.course.closed).sum()),
            "bending_1_m": line.bending(motion.position, self.course.closed),
        }

    def _local(self, knots: Floats) -> _Local:
        closed, normal = self.course.closed, self.course.normals(knots)
        return _Local(knots, normal, line.curvature(knots, normal, closed), line.lengths(knots, closed))

    def _assess(self, knots: Floats) -> Iterate:
        course = self.course
        bend = self._local(knots).bend
        turn = np.abs(bend.kappa)
        limit = course.limits.curvature_1_m
        excess = np.maximum(turn - _AIM * limit, 0.0)
        intrusion_m = max(0.0, course.intrusion_m(knots))
        deep_m = max(0.0, intrusion_m - course.tolerance_m)
        bending = np.sum((turn**2 + _EXCESS_WEIGHT * excess**2) * bend.length)
        cost = course.length_weight * line.lengths(knots, course.closed).sum()
        cost += course.bending_weight * bending
        too_tight = max(0.0, float(turn.max()) / limit - 1)
        violation = max(intrusion_m, too_tight)
        E = float(cost) / self._scale + _INTRUSION_WEIGHT * deep_m / max(self._scale, 1.0)
        return Iterate(knots.ravel(), E, violation <= course.tolerance_m, violation)

    def _solve(self, here: _Local, reach_segments: float) -> tuple[Floats, float]:
        """How far each knot should move along its normal, metres, and what that should lower the cost by."""
        course, count = self.course, len(here.knots)
        low, high = course.corridor(here.knots, here.normal)
        reach = reach_segments * here.length.mean()
        low, high = np.clip(low, -reach, reach), np.clip(high, -reach, reach)
        if not course.closed:
            low[[0, -1]] = high[[0, -1]] = 0.0
        P, q = self._bending_model(here.bend, count)
        if course.length_weight:
            _add_length(P, q, here, course.length_weight)
        rows: tuple[Floats, Floats, Floats] | tuple[()] = ()
        if np.isfinite(course.limits.curvature_1_m):
            room = np.maximum(_AIM * course.limits.curvature_1_m, np.abs(here.bend.kappa))
            rows = here.bend.changes, -room - here.bend.kappa, room - here.bend.kappa
        move, cost = native.solve_chain_qp(P, q, low, high, *rows, closed=course.closed)
        return move, max(0.0, -cost)

    def _bending_model(self, bend: Curvature, count: int) -> tuple[Floats, Floats]:
        """The bending as a quadratic of the moves; knots that turn too tightly are pulled to the limit.

        Returns:
            ``P`` and ``q`` of ``native.solve_chain_qp``.
        """
        aim = _AIM * self.course.limits.curvature_1_m
        weight = 2 * self.course.bending_weight * bend.length
        pull = np.where(np.abs(bend.kappa) > aim, _EXCESS_WEIGHT, 0.0)
        excess = np.sign(bend.kappa) * np.maximum(np.abs(bend.kappa) - aim, 0.0)
        P, q = np.zeros((3, count)), np.zeros(count)
        first = np.arange(len(bend.kappa)) - (1 if self.course.closed else 0)
        for one in range(3):
            at, change = (first + one) % count, bend.changes[:, one]
            q[at] += weight * change * (bend.kappa + pull * excess)
            for ahead in range(3 - one):
                P[ahead, at] += weight * (1 + pull) * change * bend.changes[:, one + ahead]
        return P, q


def _add_length(P: Floats, q: Floats, here: _Local, weight: float) -> None:
    """Add the sum of squared segments over twice their mean: it falls with length, and evens them out."""
    weight = weight / float(here.length.mean())
    step = np.diff(here.knots, axis=0)
    before, after = here.normal[:-1], here.normal[1:]
    P[0, :-1] += weight
    P[0, 1:] += weight
    P[1, :-1] -= weight * (before * after).sum(axis=1)
    q[:-1] -= weight * (step * before).sum(axis=1)
    q[1:] += weight * (step * after).sum(axis=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned motion.

    Attributes:
        motion: The motion itself.
        feasible: Whether it keeps every limit and obstacle to the course's tolerance.
        violation: The larger of metres inside an obstacle and excess of curvature over its limit.
        gap: What the last round gained, or hoped to gain where nothing did, relative to the cost; infinite
            before the first.
        halt_reason: Why the rounds ended.
        energies: Of the first line and after each round.
        time_ms: From the call to the motion.
    """

    motion: Motion
    feasible: bool
    violation: float
    gap: float
    halt_reason: str
    energies: tuple[float, ...]
    time_ms: float


def plan(
    course: Course,
    *,
    deadline_ms: float | None = None,
    max_steps: int | None = None,
    policy: native.HaltPolicy = PLAN_HALTING,
    clock: Clock | None = None,
) -> Plan:
    """Plan a motion through a course: the best one that the deadline allows.

    Args:
        course: A World or a Track.
        deadline_ms: Milliseconds from the call; a round is not begun when it would not end in time.
        max_steps: Largest number of rounds; the policy's by default.
        policy: When to stop.
        clock: Whose time it is.

    Returns:
        The lowest-cost feasible motion seen, or the lowest-cost one, with ``feasible`` False.

    Raises:
        InfeasibleError: There is no way from start to goal.
    """
    clock = clock or SystemClock()
    start_ns = clock.monotonic_ns()
    if deadline_ms is not None:
        policy = policy.replace(deadline_ns=start_ns + int(deadline_ms * 1e6))
    if max_steps is not None:
        policy = policy.replace(max_steps=max_steps)
    problem = PlanProblem(course)
    best, _, reason, energies = refine_problem(problem, problem.first(), policy, clock, start_ns=start_ns)
    motion = problem.motion(best)
    time_ms = (clock.monotonic_ns() - start_ns) / 1e6
    return Plan(motion, best.feasible, best.violation, best.gap, reason, energies, time_ms)
