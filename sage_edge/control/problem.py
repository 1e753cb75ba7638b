"""What a control problem is to whoever refines it: a first iterate, a step, and how good an iterate is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from sage_edge import native
from sage_edge.clock import Clock
from sage_edge.control.line import Floats


class Iterate(NamedTuple):
    """One state of a refinement, with what is known of it. Never changed in place.

    Attributes:
        x: float64 [n], what is refined.
        E: Its energy, lower is better; NaN once the problem is known to have no solution.
        feasible: Whether ``violation`` is within the problem's tolerance.
        violation: Largest violation of a constraint, in the constraint's own unit.
        gap: What is still to be gained, bounded or estimated, relative to the cost; infinite when unknown.
        carry: What the next step wants to find again, such as a solver's own state.
    """

    x: Floats
    E: float
    feasible: bool
    violation: float
    gap: float = float("inf")
    carry: Any = None


class Problem(Protocol):
    """One control problem, fully checked. Immutable: every method is pure.

    Attributes:
        kind: Its name in documents and answers.
        size: What a step's time grows with: the entries of its matrices.
        eps: The gap at which it is done, where the halting rule leaves it at that.
    """

    kind: str
    size: float
    eps: float

    def first(self) -> Iterate:
        """The first iterate."""

    def first_after(self, last: Problem, iterate: Iterate) -> Iterate:
        """The first iterate, from where the stream's last problem ended; cold if that does not fit."""

    def step(self, iterate: Iterate) -> Iterate:
        """One refinement."""

    def at(self, x: Floats) -> Iterate:
        """Any state, put inside the constraints that a projection can reach, and assessed."""

    def answer(self, iterate: Iterate) -> tuple[Floats, Mapping[str, Any]]:
        """The answer of an iterate: its array, and what JSON says about it."""


class Outcome(NamedTuple):
    """What a refinement leaves.

    Attributes:
        best: The lowest-energy feasible iterate, or the lowest-energy one when none was feasible.
        last: The iterate that it stopped at, from which the next problem of a stream goes on: the best
            feasible one may be far behind.
        halt_reason: Why it stopped.
        energies: E_0 .. E_n.
    """

    best: Iterate
    last: Iterate
    halt_reason: str
    energies: tuple[float, ...]


def refine_problem(
    problem: Problem, first: Iterate, policy: native.HaltPolicy, clock: Clock, *, start_ns: int
) -> Outcome:
    """Refine one problem until the halting rule stops it; no step begins that may end behind the deadline.

    Args:
        problem: The problem.
        first: Its first iterate.
        policy: When to stop; its deadline is on the clock.
        clock: Whose time it is.
        start_ns: When the work on the problem began; a first step is taken to last half of what went before.
    """
    current = best = first
    energies = [current.E]
    now_ns = clock.monotonic_ns()
    step_ns = (now_ns - start_ns) // 2
    while True:
        reason = native.halt_reason(
            energies,
            policy,
            feasible=current.feasible,
            gap=current.gap,
            spent_us=(now_ns - start_ns) / 1e3,
            charge_us=step_ns / 1e3,
            now_ns=now_ns,
            margin_ns=step_ns + step_ns // 4,
        )
        if reason is not None:
            return Outcome(best, current, reason, tuple(energies))
        current = problem.step(current)
        energies.append(current.E)
        if (not current.feasible, current.E) < (not best.feasible, best.E):
            best = current
        began_ns, now_ns = now_ns, clock.monotonic_ns()
        step_ns = now_ns - began_ns if len(energies) == 2 else max(step_ns, now_ns - began_ns)
