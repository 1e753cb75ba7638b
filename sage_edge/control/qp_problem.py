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
#: ADMM iterations after which a run that is still far off looks for a certificate against a solution, what
#: far off is, and what it may spend on looking.
_CERTIFICATE_AT = (20, 80, 320)
_FAR = 0.1
_CERTIFICATE_ITERATIONS = 500


class QpProblem:
    """min 1/2 x'Px + q'x  s.t.  l <= A x <= u,  lb <= x <= ub, refined by ADMM: a step is ITERATIONS of it.

    The state is the primal vector with the multipliers behind it, float64 [n + m + n]: those of the rows of
    A, then those of the bounds. The energy is the decimal logarithm of the largest scaled residual.
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
    ) -> None:
        """Borrow a solver, which many problems with the same matrices may share.

        Raises:
            ProblemError: A vector has NaN in it, or a lower limit is above its upper one.
            ShapeError: A vector does not fit the matrices.
        """
        self.solver = solver
        self.size = float(solver.n * (solver.n + solver.m))
        self._eps = eps
        self._iterations = iterations
        self._vectors = (q, l, u, lb, ub)
        self._low, self._high = _domain(solver, l, u, lb, ub)
        self._start = solver.start(*self._vectors, eps=eps)

    def first(self) -> Iterate:
        """Zero, between the bounds."""
        return self._iterate(self._start)

    def first_after(self, last: Problem, iterate: Iterate) -> Iterate:
        """The last solution, if the matrices are the same."""
        if not isinstance(last, QpProblem) or last.solver is not self.solver:
            return self.first()
        return self.at(iterate.x)

    def at(self, x: Floats) -> Iterate:
        """Primal and dual vectors, clipped to the bounds and to the signs that multipliers may have."""
        run = self._start.copy()
        run.load(*self._split(np.clip(x, self._low, self._high)))
        return self._iterate(run)

    def step(self, iterate: Iterate) -> Iterate:
        """ADMM from where the iterate's run is; no energy once a certificate speaks against a solution."""
        run = iterate.carry.copy()
        run.advance(self._iterations)
        there = self._iterate(run)
        if run.iterations in _CERTIFICATE_AT and there.gap > _FAR and self._certificate():
            return there._replace(E=float("nan"))
        return there

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
            "certificate": self._certificate() if iterate.gap > _FAR else None,
        }

    def _certificate(self) -> dict[str, Any] | None:
        """Why there is no solution, looked for in bounded time; None when that is not known."""
        found = self.solver.solve(*self._vectors, eps=self._eps, max_iter=_CERTIFICATE_ITERATIONS)
        if found.certificate is None:
            return None
        return {"of": found.status, "vector": found.certificate.tolist()}

    def _split(self, x: Floats) -> tuple[Floats, Floats]:
        return x[: self.solver.n], x[self.solver.n :]

    def _iterate(self, run: native.QpRun) -> Iterate:
        # The largest residual stands in for the gap: a duality gap says nothing while the dual is far off.
        x, E = np.concatenate([run.x, run.y]), run.energy
        return Iterate(x, E, run.feasible, run.primal_residual, 10.0**E, run)


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
