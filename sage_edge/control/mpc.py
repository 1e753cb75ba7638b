"""Linear model predictive control, condensed and prestabilised: docs/adr/0014-prestabilised-mpc.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sage_edge import native
from sage_edge.clock import Clock, SystemClock
from sage_edge.control.line import Floats
from sage_edge.control.problem import Iterate, Problem, refine_problem
from sage_edge.control.qp_problem import QpProblem
from sage_edge.errors import ParameterError, ProblemError, ShapeError

#: Done when the plan is feasible with a gap of at most 0.1 %, or does not move any more.
MPC_HALTING = native.HaltPolicy(K=3, eps=1e-4, max_steps=100, halt_when_feasible=True, gap_tolerance=1e-3)
#: ADMM iterations of one step; fewer than for a QP from outside, as a warm start leaves little to do.
_ITERATIONS = 5


@dataclass(frozen=True, slots=True)
class MpcSolution:
    """Inputs for the horizon, and where they lead.

    Attributes:
        u: float64 [N, nu], between its bounds whatever ended the refinement.
        x: float64 [N + 1, nx], exactly ``x[k + 1] = A x[k] + B u[k]`` from the given state.
        feasible: Whether ``x`` keeps its bounds to ``eps``.
        violation: By how much it does not, in the state's own unit.
        gap: Relative duality gap; infinite when unknown.
        halt_reason: Why the refinement ended.
        iterations: ADMM iterations.
        energies: Logarithms of the largest scaled residual, of the first iterate and after each step.
        warm: What the next ``solve`` takes to begin where this one ended.
    """

    u: Floats
    x: Floats
    feasible: bool
    violation: float
    gap: float
    halt_reason: str
    iterations: int
    energies: tuple[float, ...]
    warm: tuple[MpcProblem, Iterate]


class MPC:
    """A linear model with quadratic cost and bounds; set up once, solved for every measured state.

        min  sum_k (x_k - x_ref_k)' Q (x_k - x_ref_k) + (u_k - u_ref_k)' R (u_k - u_ref_k)  + terminal QN
        s.t. x_{k+1} = A x_k + B u_k,  x_min <= x_k <= x_max (k = 1 .. N),  u_min <= u_k <= u_max

    Args:
        A: float64 [nx, nx].
        B: float64 [nx, nu].
        Q: float64 [nx, nx] or its diagonal [nx], positive semidefinite.
        R: float64 [nu, nu] or its diagonal [nu], positive definite.
        N: Horizon, steps, at least 1.
        QN: Weight of the last state; Q by default.
        x_min, x_max: float64 [nx]; infinite, or None, where there is no bound.
        u_min, u_max: float64 [nu]; the same.
        eps: Violation of a state's bound that counts as none, and the gap at which a solution is one.

    Raises:
        ShapeError: A matrix has another shape, or holds NaN.
        ParameterError: The horizon is empty, or a lower bound is above its upper one.
        ProblemError: The cost is not convex.
    """

    def __init__(
        self,
        A: ArrayLike,
        B: ArrayLike,
        Q: ArrayLike,
        R: ArrayLike,
        N: int,
        *,
        QN: ArrayLike | None = None,
        x_min: ArrayLike | None = None,
        x_max: ArrayLike | None = None,
        u_min: ArrayLike | None = None,
        u_max: ArrayLike | None = None,
        eps: float = 1e-3,
    ) -> None:
        if N < 1:
            raise ParameterError(f"N: expected a horizon of at least 1 step, got {N}")
        self.A, self.B = _matrix("A", A), _matrix("B", B)
        self.nx, self.nu = self.B.shape
        self.N, self.eps = N, eps
        if self.A.shape != (self.nx, self.nx):
            raise ShapeError(f"A: expected [{self.nx}, {self.nx}] to fit B, got {list(self.A.shape)}")
        self._Q = _weight("Q", Q, self.nx)
        self._QN = self._Q if QN is None else _weight("QN", QN, self.nx)
        self._R = _weight("R", R, self.nu)
        self.u_min, self.u_max = _bounds("u", u_min, u_max, self.nu)
        self.x_min, self.x_max = _bounds("x", x_min, x_max, self.nx)
        self._bounded_x = np.flatnonzero(np.isfinite(self.x_min) | np.isfinite(self.x_max))
        self._bounded_u = np.flatnonzero(np.isfinite(self.u_min) | np.isfinite(self.u_max))
        with np.errstate(over="ignore", invalid="ignore"):
            self._stabilise()

    def _stabilise(self) -> None:
        """The feedback that is best without limits, by the Riccati recursion, and what of it the QP needs."""
        N, nx, nu = self.N, self.nx, self.nu
        gain, spread, settle = np.empty((N, nu, nx)), np.empty((N, nu, nu)), np.empty((N, nu, nu))
        to_go = self._QN
        for k in reversed(range(N)):
            weighed = self.B.T @ to_go
            factor = _factor(self._R + weighed @ self.B, k)
            settle[k] = np.linalg.inv(factor).T @ np.linalg.inv(factor)
            gain[k] = -settle[k] @ (weighed @ self.A)
            spread[k] = np.linalg.inv(factor).T
            closed = self.A + self.B @ gain[k]
            to_go = self._Q + gain[k].T @ self._R @ gain[k] + closed.T @ to_go @ closed
            to_go = (to_go + to_go.T) / 2
        limits = self.x_min, self.x_max, self.u_min, self.u_max
        self._horizon = native.Horizon(
            self.A, self.B, self._Q, self._QN, self._R, gain, spread, settle, *limits
        )
        self._rows = self._condensed(gain, spread)
        self._solver = native.QpSolver(2 * np.eye(N * nu), self._rows)

    def _condensed(self, gain: Floats, spread: Floats) -> Floats:
        """How the bounded states, then the bounded inputs, follow the variables: float64 [rows, N nu]."""
        N, nx, nu = self.N, self.nx, self.nu
        states, inputs = np.zeros((N, nx, N, nu)), np.zeros((N, nu, N, nu))
        for k in range(N):
            if k:
                inputs[k] = np.tensordot(gain[k], states[k - 1], axes=1)
                states[k] = np.tensordot(self.A, states[k - 1], axes=1)
            inputs[k, :, k] = spread[k]
            states[k] += np.tensordot(self.B, inputs[k], axes=1)
        parts = states[:, self._bounded_x], inputs[:, self._bounded_u]
        return np.concatenate([part.reshape(-1, N * nu) for part in parts])

    @property
    def solver(self) -> native.QpSolver:
        """The condensed QP's solver, with its cached factors."""
        return self._solver

    def problem(
        self,
        x0: ArrayLike,
        x_ref: ArrayLike | None = None,
        u_ref: ArrayLike | None = None,
        *,
        shift: bool = True,
    ) -> MpcProblem:
        """The problem of a measured state.

        Args:
            x0: float64 [nx].
            x_ref: float64 [nx] or [N, nx], wanted states 1 .. N; zero by default.
            u_ref: float64 [nu] or [N, nu], wanted inputs; zero by default.
            shift: Whether a stage has passed since the problem before it in its stream.
        """
        state = _vector("x0", x0, self.nx)
        wanted_x = _stages("x_ref", x_ref, self.N, self.nx)
        wanted_u = _stages("u_ref", u_ref, self.N, self.nu)
        return MpcProblem(self, state, wanted_x, wanted_u, shift=shift)

    def solve(
        self,
        x0: ArrayLike,
        x_ref: ArrayLike | None = None,
        u_ref: ArrayLike | None = None,
        *,
        warm: tuple[MpcProblem, Iterate] | None = None,
        shift: bool = True,
        policy: native.HaltPolicy = MPC_HALTING,
        deadline_ms: float | None = None,
        clock: Clock | None = None,
    ) -> MpcSolution:
        """Inputs for a measured state: the best ones within the policy's limits and the deadline.

        Args:
            x0: float64 [nx].
            x_ref: As for ``problem``.
            u_ref: As for ``problem``.
            warm: ``warm`` of the last solution.
            shift: Whether a stage of the horizon has passed since; False where the loop is much faster.
            policy: When to stop.
            deadline_ms: Milliseconds from the call.
            clock: Whose time it is.
        """
        clock = clock or SystemClock()
        start_ns = clock.monotonic_ns()
        if deadline_ms is not None:
            policy = policy.replace(deadline_ns=start_ns + int(deadline_ms * 1e6))
        policy = policy.replace(gap_tolerance=min(policy.gap_tolerance, self.eps))
        problem = self.problem(x0, x_ref, u_ref, shift=shift)
        first = problem.first_after(*warm) if warm else problem.first()
        best, last, reason, energies = refine_problem(problem, first, policy, clock, start_ns=start_ns)
        return MpcSolution(
            u=problem.inputs(best),
            x=problem.states(best),
            feasible=best.feasible,
            violation=best.violation,
            gap=best.gap,
            halt_reason=reason,
            iterations=_ITERATIONS * (len(energies) - 1),
            energies=energies,
            warm=(problem, last),
        )

    @property
    def horizon(self) -> native.Horizon:
        """The plant under its feedback."""
        return self._horizon

    def room(self, x: Floats, u: Floats) -> tuple[Floats, Floats]:
        """What states [N + 1, nx] and inputs [N, nu] without limits leave of the limits: the QP's own."""
        sides = ((self.x_min, self.u_min), (self.x_max, self.u_max))
        states, inputs = x[1:, self._bounded_x], u[:, self._bounded_u]
        lower, upper = (
            np.concatenate(
                [(of_x[self._bounded_x] - states).ravel(), (of_u[self._bounded_u] - inputs).ravel()]
            )
            for of_x, of_u in sides
        )
        return lower, upper

    def shifted(self, x: Floats) -> Floats:
        """Variables and multipliers one step later: the first stage drops out, the last one is repeated."""
        ends = self.N * np.cumsum([self.nu, len(self._bounded_x), len(self._bounded_u)])
        blocks = [part.reshape(self.N, -1) for part in np.split(x[: ends[-1]], ends[:-1])]
        moved = [np.vstack([block[1:], block[-1:]]).ravel() for block in blocks]
        return np.concatenate([*moved, x[ends[-1] :]])


class MpcProblem(QpProblem):
    """An MPC for one measured state: the variables are what is added to the inputs of the best feedback law.

    Without limits that is nothing, so that they are zero and the cost is the law's: what the limits cost is
    their square. Answers are played: inputs clipped as they are made, states as they follow, and the cost
    counted from both.
    """

    kind = "mpc"

    def __init__(
        self,
        mpc: MPC,
        x0: Floats,
        x_ref: Floats,
        u_ref: Floats,
        *,
        shift: bool,
    ) -> None:
        self.mpc = mpc
        self._shift = shift
        lead = mpc.horizon.lead(x_ref, u_ref)
        self._play = (x0, lead), (x_ref, u_ref)
        x, u, self._least, _ = mpc.horizon.play(x0, lead, None, x_ref, u_ref, clips=False)
        if not np.isfinite(self._least):
            raise ProblemError(f"x0: its cost over {mpc.N} stages is beyond what a double holds; shorten N")
        empty = np.zeros(mpc.solver.n)
        super().__init__(
            mpc.solver, empty, *mpc.room(x, u), eps=mpc.eps, iterations=_ITERATIONS, offset=self._least
        )

    def first_after(self, last: Problem, iterate: Iterate) -> Iterate:
        """The last solution, one stage further on if one has passed, unless a cold start is nearer."""
        if not isinstance(last, MpcProblem) or last.solver is not self.solver:
            return self.first()
        return self._better(self.at(self.mpc.shifted(iterate.x) if self._shift else iterate.x))

    def inputs(self, iterate: Iterate) -> Floats:
        """float64 [N, nu], between their bounds."""
        return self._played(iterate.x)[1]

    def states(self, iterate: Iterate) -> Floats:
        """float64 [N + 1, nx], where the inputs lead."""
        return self._played(iterate.x)[0]

    def answer(self, iterate: Iterate) -> tuple[Floats, Mapping[str, Any]]:
        """The inputs float64 [N, nu]; in JSON the states too."""
        x, u, _, _ = self._played(iterate.x)
        _, details = super().answer(iterate)
        kept = ("iterations", "dual_residual", "certificate")
        said = {name: details[name] for name in kept}
        return u, {"u": u.tolist(), "x": x.tolist(), **said}

    def _played(self, x: Floats) -> tuple[Floats, Floats, float, float]:
        w, _ = self._split(x)
        return self.mpc.horizon.play(*self._play[0], w, *self._play[1], clips=True)

    def _iterate(self, run: native.QpRun) -> Iterate:
        """Feasible, violation, gap and energy are those of what is played, not what the solver believes."""
        x = np.concatenate([run.x, run.y])
        _, _, cost, violation = self._played(x)
        gained = cost - self._least - run.dual_objective
        gap = abs(gained) / cost if cost > 0 else 0.0
        # What is played may keep every limit though the iterate does not: its inputs are clipped.
        feasible = violation == 0 or (violation <= self.eps and run.violation <= 0.1 * self.eps)
        off = gap if feasible else max(gap, run.violation)
        E = np.log10(max(off, 1e-16)) if np.isfinite(gap) else np.nan
        return Iterate(x, float(E), feasible, violation, gap, run)


def _factor(hessian: Floats, stage: int) -> Floats:
    """The lower Cholesky factor of what a stage's inputs cost."""
    if not np.isfinite(hessian).all():
        raise ProblemError(
            "A: what is left to pay grows beyond what a double holds; shorten N, or check A and B"
        )
    try:
        factor: Floats = np.linalg.cholesky((hessian + hessian.T) / 2).astype(np.float64)
    except np.linalg.LinAlgError as exc:
        least = np.linalg.eigvalsh((hessian + hessian.T) / 2)[0]
        raise ProblemError(
            f"R, Q: expected that more input costs more at every stage, got smallest eigenvalue {least:g} "
            f"of R + B'(cost to go)B at stage {stage}"
        ) from exc
    return factor


def _matrix(name: str, values: ArrayLike) -> Floats:
    try:
        matrix = np.array(values, np.float64)
    except (TypeError, ValueError) as exc:
        raise ShapeError(f"{name}: expected a matrix of numbers: {exc}") from exc
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ShapeError(f"{name}: expected a matrix that is not empty, got shape {list(matrix.shape)}")
    return _finite(name, matrix)


def _weight(name: str, values: ArrayLike, size: int) -> Floats:
    weight = np.array(values, np.float64)
    if weight.shape == (size,):
        weight = np.diag(weight)
    if weight.shape != (size, size):
        raise ShapeError(f"{name}: expected [{size}, {size}] or its diagonal, got {list(weight.shape)}")
    return _finite(name, (weight + weight.T) / 2)


def _vector(name: str, values: ArrayLike, size: int) -> Floats:
    vector = np.array(values, np.float64)
    if vector.shape != (size,):
        raise ShapeError(f"{name}: expected [{size}], got {list(vector.shape)}")
    return _finite(name, vector)


def _stages(name: str, values: ArrayLike | None, stages: int, size: int) -> Floats:
    if values is None:
        return np.zeros((stages, size))
    rows = np.array(values, np.float64)
    if rows.shape not in ((size,), (stages, size)):
        raise ShapeError(f"{name}: expected [{size}] or [{stages}, {size}], got {list(rows.shape)}")
    return _finite(name, np.ascontiguousarray(np.broadcast_to(rows, (stages, size))))


def _bounds(name: str, low: ArrayLike | None, high: ArrayLike | None, size: int) -> tuple[Floats, Floats]:
    lower = np.full(size, -np.inf) if low is None else np.array(low, np.float64)
    upper = np.full(size, np.inf) if high is None else np.array(high, np.float64)
    if lower.shape != (size,) or upper.shape != (size,):
        raise ShapeError(f"{name}_min, {name}_max: expected [{size}]")
    if not (lower <= upper).all():
        place = int(np.flatnonzero(~(lower <= upper))[0])
        came = f"{float(lower[place])} and {float(upper[place])} at {place}"
        raise ParameterError(f"{name}_min: expected at most {name}_max, and no NaN, got {came}")
    return lower, upper


def _finite(name: str, array: Floats) -> Floats:
    if not np.isfinite(array).all():
        raise ShapeError(f"{name}: expected finite numbers, got NaN or infinity")
    return array
