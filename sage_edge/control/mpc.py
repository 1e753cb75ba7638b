"""Linear model predictive control, condensed: the inputs are the variables, the states follow from them."""

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
from sage_edge.errors import ParameterError, ShapeError

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
        eps: Violation of a bound, and residual, that counts as none.

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
        weight = _weight("Q", Q, self.nx)
        last = weight if QN is None else _weight("QN", QN, self.nx)
        self._Q = np.stack([weight] * (N - 1) + [last])
        self._R = _weight("R", R, self.nu)
        self.u_min, self.u_max = _bounds("u", u_min, u_max, self.nu)
        self.x_min, self.x_max = _bounds("x", x_min, x_max, self.nx)
        self._bounded = np.flatnonzero(np.isfinite(self.x_min) | np.isfinite(self.x_max))
        self._condense()

    def _condense(self) -> None:
        """X = free x0 + forced U, stage by stage, and the QP's matrices from it."""
        N, nx, nu = self.N, self.nx, self.nu
        free, forced = np.zeros((N, nx, nx)), np.zeros((N, nx, N, nu))
        power = np.eye(nx)
        for k in range(N):
            if k:
                forced[k] = np.tensordot(self.A, forced[k - 1], axes=1)
            forced[k, :, k] = self.B
            power = self.A @ power
            free[k] = power
        self._free = free.reshape(N * nx, nx)
        self._forced = forced.reshape(N * nx, N * nu)
        self._pull = np.einsum("kij,kjv->kiv", self._Q, forced.reshape(N, nx, N * nu)).reshape(N * nx, N * nu)
        P = 2 * (self._forced.T @ self._pull + np.kron(np.eye(N), self._R))
        self._rows = np.ascontiguousarray(forced[:, self._bounded].reshape(-1, N * nu))
        self._solver = native.QpSolver(np.ascontiguousarray((P + P.T) / 2), self._rows)
        self._lb, self._ub = np.tile(self.u_min, N), np.tile(self.u_max, N)

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

    def vectors(self, x0: Floats, x_ref: Floats, u_ref: Floats) -> tuple[Floats, Floats, Floats]:
        """The linear cost, and the limits of the bounded states, of the condensed QP."""
        ahead = self._free @ x0
        q = 2 * (self._pull.T @ (ahead - x_ref.ravel()) - (u_ref @ self._R).ravel())
        free = ahead.reshape(self.N, self.nx)[:, self._bounded]
        lower, upper = self.x_min[self._bounded] - free, self.x_max[self._bounded] - free
        return q, lower.ravel(), upper.ravel()

    def box(self) -> tuple[Floats, Floats]:
        """Bounds of all inputs of the horizon, float64 [N nu]."""
        return self._lb, self._ub

    def rollout(self, x0: Floats, u: Floats) -> Floats:
        """States 0 .. N that inputs [N, nu] lead to."""
        states = np.empty((self.N + 1, self.nx))
        states[0] = x0
        for k in range(self.N):
            states[k + 1] = self.A @ states[k] + self.B @ u[k]
        return states

    def excess(self, u: Floats, lower: Floats, upper: Floats) -> float:
        """How far the states leave the bounds that ``vectors`` gave, under inputs [N nu]."""
        moved = self._rows @ u
        return float(np.maximum(lower - moved, moved - upper).max(initial=0.0))

    def shifted(self, x: Floats) -> Floats:
        """Primal and dual vectors one step later: the first stage drops out, the last one is repeated."""
        ends = np.cumsum([self.N * self.nu, self.N * len(self._bounded)])
        blocks = [part.reshape(self.N, -1) for part in np.split(x, ends)]
        return np.concatenate([np.vstack([block[1:], block[-1:]]).ravel() for block in blocks])


class MpcProblem(QpProblem):
    """An MPC for one measured state. Answers are projected: inputs between bounds, states rolled out."""

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
        self._x0 = x0
        q, lower, upper = mpc.vectors(x0, x_ref, u_ref)
        self._limits = lower, upper
        super().__init__(mpc.solver, q, lower, upper, *mpc.box(), eps=mpc.eps, iterations=_ITERATIONS)

    def first_after(self, last: Problem, iterate: Iterate) -> Iterate:
        """The last solution, one stage further on if one has passed."""
        if not isinstance(last, MpcProblem) or last.solver is not self.solver:
            return self.first()
        return self.at(self.mpc.shifted(iterate.x) if self._shift else iterate.x)

    def inputs(self, iterate: Iterate) -> Floats:
        """float64 [N, nu], between their bounds."""
        x, _ = self._split(iterate.x)
        u: Floats = np.clip(x, *self.mpc.box()).reshape(self.mpc.N, self.mpc.nu)
        return u

    def states(self, iterate: Iterate) -> Floats:
        """float64 [N + 1, nx], where the inputs lead."""
        return self.mpc.rollout(self._x0, self.inputs(iterate))

    def answer(self, iterate: Iterate) -> tuple[Floats, Mapping[str, Any]]:
        """The inputs float64 [N, nu]; in JSON the states too."""
        u = self.inputs(iterate)
        _, details = super().answer(iterate)
        kept = ("iterations", "dual_residual", "certificate")
        said = {name: details[name] for name in kept}
        return u, {"u": u.tolist(), "x": self.states(iterate).tolist(), **said}

    def _iterate(self, run: native.QpRun) -> Iterate:
        """Feasible is what the projected inputs lead to, not what the solver believes."""
        known = super()._iterate(run)
        violation = self.mpc.excess(self.inputs(known).ravel(), *self._limits)
        return known._replace(violation=violation, feasible=violation <= self.mpc.eps)


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
    return _finite(name, weight)


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
    return _finite(name, np.broadcast_to(rows, (stages, size)))


def _bounds(name: str, low: ArrayLike | None, high: ArrayLike | None, size: int) -> tuple[Floats, Floats]:
    lower = np.full(size, -np.inf) if low is None else np.array(low, np.float64)
    upper = np.full(size, np.inf) if high is None else np.array(high, np.float64)
    if lower.shape != (size,) or upper.shape != (size,):
        raise ShapeError(f"{name}_min, {name}_max: expected [{size}]")
    if not (lower <= upper).all():
        raise ParameterError(f"{name}_min: expected at most {name}_max, and no NaN")
    return lower, upper


def _finite(name: str, array: Floats) -> Floats:
    if not np.isfinite(array).all():
        raise ShapeError(f"{name}: expected finite numbers, got NaN or infinity")
    return array
