"""A quadratic program as a problem that is refined by ADMM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sage_edge import native
from sage_edge.control.line import Floats
from sage_edge.control.problem import Iterate, Problem

#: ADMM iterations of one step.
ITERATIONS = 10
#: ADMM iterations after which a run that is not done looks for the exact solution, or for a certificate that
#: there is none.
_FINISH_AT = (20, 80, 320)


class QpProblem:
    """min 1/2 x'Px + q'x  s.t.  l <= A x <= u,  lb <= x <= ub, refined by ADMM: a step is ITERATIONS of it.

    The state is the primal vector with the multipliers behind it, float64 [n + m + n]: those of the rows of
    A, then those of the bounds. The energy is the decimal logarithm of the larger of the relative duality gap
    and the relative violation of a limit: free of the units of cost and variables.

    What a run proves of the problem, a certificate, is kept with the problem.
    """

    kind = "qp"

    def __init__(
        self,
        solver: native.QpSolver,
        q: Floats,
        l: Floats | None = None,
        u: Floats | None = None,
        lb: Floats | None = None,
        ub: Floats | None = None,
        *,
        eps: float = 1e-3,
        iterations: int = ITERATIONS,
        offset: float = 0.0,
    ) -> None:
        """Borrow a solver, which many problems with the same matrices may share.

        Args:
            solver: Of the matrices.
            q: The vectors, as of ``native.QpSolver.solve``.
            l: As ``q``.
            u: As ``q``.
            lb: As ``q``.
            ub: As ``q``.
            iterations: ADMM iterations of a step.
            eps: Violation of a limit that counts as none, and the gap at which the problem is done.
            offset: A constant of the cost.

        Raises:
            ProblemError: A vector has NaN in it, or a lower limit is above its upper one.
            ShapeError: A vector does not fit the matrices.
        """
        self.solver = solver
        self.size = float(solver.n * (solver.n + solver.m))
        self.eps = eps
        self._iterations = iterations
        self._certificate: dict[str, Any] | None = None
        self._low, self._high = _domain(solver, l, u, lb, ub)
        self._start = solver.start(q, l, u, lb, ub, eps=eps, offset=offset)

    def first(self) -> Iterate:
        """Zero, between the bounds."""
        return self._iterate(self._start)

    def first_after(self, last: Problem, iterate: Iterate) -> Iterate:
        """The last solution, if the matrices are the same and it is nearer than a cold start."""
        if not isinstance(last, QpProblem) or last.solver is not self.solver:
            return self.first()
        return self._better(self.at(iterate.x))

    def _better(self, warm: Iterate) -> Iterate:
        """The warm start where it is no worse than the cold one, by what it keeps and then by energy."""
        cold = self.first()
        if warm.feasible == cold.feasible:
            return warm if warm.E <= cold.E else cold
        return warm if warm.feasible else cold

    def at(self, x: Floats) -> Iterate:
        """Primal and dual vectors, clipped to the bounds and to the signs that multipliers may have."""
        run = self._start.copy()
        run.load(*self._split(np.clip(x, self._low, self._high)))
        return self._iterate(run)

    def step(self, iterate: Iterate) -> Iterate:
        """ADMM from where the iterate's run is, and sometimes its exact end; a certificate has no energy."""
        run = iterate.carry.copy()
        run.advance(self._iterations)
        there = self._iterate(run)
        if run.iterations not in _FINISH_AT or (there.feasible and there.gap <= self.eps):
            return there
        status, certificate = run.finish()
        if certificate is None:
            return self._iterate(run) if status == "solved" else there
        self._certificate = {"of": status, "vector": certificate.tolist()}
        return there._replace(E=float("nan"))

    def answer(self, iterate: Iterate) -> tuple[Floats, Mapping[str, Any]]:
        """The primal vector float64 [n], between its bounds."""
        x, y = self._split(iterate.x)
        run = iterate.carry
        return x, {
            "x": x.tolist(),
            "y": y.tolist(),
            "objective": run.objective,
            "iterations": run.iterations,
            "primal_residual": run.primal_residual,
            "dual_residual": run.dual_residual,
            "certificate": self._certificate,
        }

    def _split(self, x: Floats) -> tuple[Floats, Floats]:
        return x[: self.solver.n], x[self.solver.n :]

    def _iterate(self, run: native.QpRun) -> Iterate:
        x = np.concatenate([run.x, run.y])
        return Iterate(x, run.energy, run.feasible, run.primal_residual, run.gap, run)


def _domain(
    solver: native.QpSolver, l: Floats | None, u: Floats | None, lb: Floats | None, ub: Floats | None
) -> tuple[Floats, Floats]:
    """Where primal and dual vectors may be: no multiplier points to a limit that is not there."""
    lower, upper = _known(l, solver.m, -np.inf), _known(u, solver.m, np.inf)
    least, most = _known(lb, solver.n, -np.inf), _known(ub, solver.n, np.inf)
    low = np.where(np.isfinite(np.concatenate([lower, least])), -np.inf, 0.0)
    high = np.where(np.isfinite(np.concatenate([upper, most])), np.inf, 0.0)
    return np.concatenate([least, low]), np.concatenate([most, high])


def _known(limit: Floats | None, size: int, missing: float) -> Floats:
    return np.full(size, missing) if limit is None else limit
