"""The QP solvers that are compared: each through qpsolvers, through its own call, and set up once for many.

A contender's "own call" and "warm" take a problem that has been converted to its format beforehand, at no
cost to it. Tolerances are absolute bounds on the primal residual, the dual residual and, where the solver
knows one, the duality gap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sage_edge.control import solve_qp
from sage_edge.native import QpSolver

Vectors = tuple[Any, ...]


class QP(NamedTuple):
    """min 1/2 x'Px + q'x  s.t.  G x <= h, A x = b, lb <= x <= ub; None: there is none of these."""

    P: Any
    q: Any
    G: Any
    h: Any
    A: Any
    b: Any
    lb: Any
    ub: Any

    def rows(self) -> tuple[Any, Any, Any]:
        """Inequalities and equalities as rows with two limits."""
        if self.A is None:
            return self.G, np.full(len(self.h), -np.inf), self.h
        lower = np.concatenate([np.full(len(self.h), -np.inf), self.b])
        return np.vstack([self.G, self.A]), lower, np.concatenate([self.h, self.b])


@dataclass
class Contender:
    """A solver, as the benchmark calls it.

    Attributes:
        name: As in qpsolvers.
        options: By tolerance, what qpsolvers hands to it.
        sparse: Whether it takes sparse matrices.
        own: By problem and tolerance, a call that converts nothing.
        inside: From what ``own`` returns, the seconds that the solver says it took; None: it does not say.
        warm: From the first problem of a family and tolerance, a function that takes each problem to a call
            with the same matrices and other vectors.
    """

    name: str
    options: Callable[[float], dict[str, Any]]
    sparse: bool = False
    own: Callable[[QP, float], Callable[[], Any]] | None = None
    inside: Callable[[Any], float] | None = None
    warm: Callable[[QP, float], Callable[[QP], Callable[[], Any]]] | None = None
    failures: list[str] = field(default_factory=list)


def _ours() -> Contender:
    def own(qp: QP, eps: float) -> Callable[[], Any]:
        rows, lower, upper = qp.rows()
        lower = None if qp.A is None else lower
        return lambda: solve_qp(qp.P, qp.q, rows, lower, upper, qp.lb, qp.ub, eps=eps)

    def warm(first: QP, eps: float) -> Callable[[QP], Callable[[], Any]]:
        solver = QpSolver(first.P, first.rows()[0])

        def call(qp: QP) -> Callable[[], Any]:
            _, lower, upper = qp.rows()
            return lambda: solver.solve(qp.q, lower, upper, qp.lb, qp.ub, eps=eps)

        return call

    return Contender("sage", lambda eps: {"eps": eps}, own=own, warm=warm)


def _quadprog() -> Contender:
    import quadprog

    def own(qp: QP, eps: float) -> Callable[[], Any]:
        C, b, equalities = -qp.G.T, -qp.h, 0
        if qp.A is not None:
            C, b, equalities = -np.vstack([qp.A, qp.G]).T, -np.concatenate([qp.b, qp.h]), len(qp.b)
        a = -qp.q
        return lambda: quadprog.solve_qp(qp.P, a, C, b, equalities)

    return Contender("quadprog", lambda eps: {}, own=own)


def _daqp() -> Contender:
    import daqp

    def arrays(qp: QP) -> tuple[Any, ...]:
        rows, _, upper = qp.rows()
        lower = np.full(len(upper), -1e30)
        sense = np.zeros(len(upper), np.intc)
        sense[len(qp.h) :] = 5
        if qp.lb is not None:
            upper, lower = np.concatenate([qp.ub, upper]), np.concatenate([qp.lb, lower])
            sense = np.concatenate([np.zeros(len(qp.ub), np.intc), sense])
        return qp.P, qp.q, rows, np.ascontiguousarray(upper), lower, sense

    def own(qp: QP, eps: float) -> Callable[[], Any]:
        P, q, rows, upper, lower, sense = arrays(qp)
        return lambda: daqp.solve(P, q, rows, upper, lower, sense, primal_tol=eps, dual_tol=eps)

    def warm(first: QP, eps: float) -> Callable[[QP], Callable[[], Any]]:
        model = daqp.Model()
        model.setup(*arrays(first))
        model.settings = {"primal_tol": eps, "dual_tol": eps}

        def call(qp: QP) -> Callable[[], Any]:
            _, q, _, upper, lower, _ = arrays(qp)

            def solve() -> Any:
                model.update(f=q, bupper=upper, blower=lower)
                return model.solve()

            return solve

        return call

    return Contender(
        "daqp",
        lambda eps: {"primal_tol": eps, "dual_tol": eps},
        own=own,
        inside=lambda found: found[3]["setup_time"] + found[3]["solve_time"],
        warm=warm,
    )


def _piqp() -> Contender:
    import piqp

    def made(qp: QP, eps: float) -> Any:
        solver = piqp.DenseSolver()
        solver.settings.eps_abs, solver.settings.eps_rel = eps, 0.0
        solver.settings.check_duality_gap = True
        solver.settings.eps_duality_gap_abs, solver.settings.eps_duality_gap_rel = eps, 0.0
        solver.settings.compute_timings = True
        lower = np.full(len(qp.h), -np.inf)
        solver.setup(qp.P, qp.q, qp.A, qp.b, qp.G, lower, qp.h, qp.lb, qp.ub)
        return solver

    def own(qp: QP, eps: float) -> Callable[[], Any]:
        def solve() -> Any:
            solver = made(qp, eps)
            solver.solve()
            return solver

        return solve

    def warm(first: QP, eps: float) -> Callable[[QP], Callable[[], Any]]:
        solver = made(first, eps)

        def call(qp: QP) -> Callable[[], Any]:
            def solve() -> Any:
                solver.update(c=qp.q, b=qp.b, h_u=qp.h, x_l=qp.lb, x_u=qp.ub)
                return solver.solve()

            return solve

        return call

    return Contender(
        "piqp",
        lambda eps: {
            "eps_abs": eps,
            "eps_rel": 0.0,
            "check_duality_gap": True,
            "eps_duality_gap_abs": eps,
            "eps_duality_gap_rel": 0.0,
        },
        own=own,
        inside=lambda solver: solver.result.info.run_time,
        warm=warm,
    )


def _proxqp() -> Contender:
    from proxsuite import proxqp

    def made(qp: QP, eps: float) -> Any:
        equalities = 0 if qp.b is None else len(qp.b)
        solver = proxqp.dense.QP(len(qp.q), equalities, len(qp.h), qp.lb is not None)
        solver.settings.eps_abs, solver.settings.eps_rel = eps, 0.0
        solver.settings.check_duality_gap = True
        solver.settings.eps_duality_gap_abs, solver.settings.eps_duality_gap_rel = eps, 0.0
        solver.settings.compute_timings = True
        lower = np.full(len(qp.h), -1e30)
        box = () if qp.lb is None else (qp.lb, qp.ub)
        solver.init(qp.P, qp.q, qp.A, qp.b, qp.G, lower, qp.h, *box)
        return solver

    def own(qp: QP, eps: float) -> Callable[[], Any]:
        def solve() -> Any:
            solver = made(qp, eps)
            solver.solve()
            return solver

        return solve

    def warm(first: QP, eps: float) -> Callable[[QP], Callable[[], Any]]:
        solver = made(first, eps)

        def call(qp: QP) -> Callable[[], Any]:
            def solve() -> Any:
                solver.update(g=qp.q, b=qp.b, u=qp.h)
                return solver.solve()

            return solve

        return call

    return Contender(
        "proxqp",
        lambda eps: {
            "eps_abs": eps,
            "eps_rel": 0.0,
            "check_duality_gap": True,
            "eps_duality_gap_abs": eps,
            "eps_duality_gap_rel": 0.0,
        },
        own=own,
        inside=lambda solver: solver.results.info.run_time * 1e-6,
        warm=warm,
    )


def _sparse_rows(qp: QP) -> tuple[Any, Any, Any]:
    from scipy import sparse

    rows, lower, upper = qp.rows()
    if qp.lb is not None:
        rows = np.vstack([rows, np.eye(len(qp.q))])
        lower, upper = np.concatenate([lower, qp.lb]), np.concatenate([upper, qp.ub])
    return sparse.csc_matrix(rows), lower, upper


def _osqp() -> Contender:
    import osqp
    from scipy import sparse

    limits = {"eps_rel": 0.0, "max_iter": 100_000, "polishing": False}

    def made(qp: QP, eps: float) -> Callable[[], Any]:
        P = sparse.triu(qp.P, format="csc")
        rows, lower, upper = _sparse_rows(qp)

        def setup() -> Any:
            solver = osqp.OSQP()
            solver.setup(P, qp.q, rows, lower, upper, verbose=False, eps_abs=eps, **limits)
            return solver

        return setup

    def own(qp: QP, eps: float) -> Callable[[], Any]:
        setup = made(qp, eps)
        return lambda: setup().solve()

    def warm(first: QP, eps: float) -> Callable[[QP], Callable[[], Any]]:
        solver = made(first, eps)()

        def call(qp: QP) -> Callable[[], Any]:
            _, lower, upper = _sparse_rows(qp)

            def solve() -> Any:
                solver.update(q=qp.q, l=lower, u=upper)
                return solver.solve()

            return solve

        return call

    return Contender(
        "osqp",
        lambda eps: {"eps_abs": eps, **limits},
        sparse=True,
        own=own,
        inside=lambda found: found.info.run_time,
        warm=warm,
    )


def _clarabel() -> Contender:
    import clarabel
    from scipy import sparse

    def made(qp: QP, eps: float, presolve: bool) -> Callable[[], Any]:
        P = sparse.triu(qp.P, format="csc")
        blocks, limits, cones = [qp.G], [qp.h], []
        if qp.A is not None:
            blocks, limits = [qp.A, *blocks], [qp.b, *limits]
            cones.append(clarabel.ZeroConeT(len(qp.b)))
        if qp.lb is not None:
            eye = np.eye(len(qp.q))
            blocks, limits = [*blocks, eye, -eye], [*limits, qp.ub, -qp.lb]
        rows, right = sparse.csc_matrix(np.vstack(blocks)), np.concatenate(limits)
        cones.append(clarabel.NonnegativeConeT(len(right) - (0 if qp.b is None else len(qp.b))))

        def setup() -> Any:
            settings = clarabel.DefaultSettings()
            settings.verbose, settings.presolve_enable = False, presolve
            settings.tol_feas = settings.tol_gap_abs = settings.tol_gap_rel = eps
            return clarabel.DefaultSolver(P, qp.q, rows, right, cones, settings)

        return setup

    def own(qp: QP, eps: float) -> Callable[[], Any]:
        setup = made(qp, eps, True)
        return lambda: setup().solve()

    def warm(first: QP, eps: float) -> Callable[[QP], Callable[[], Any]]:
        solver = made(first, eps, False)()

        def call(qp: QP) -> Callable[[], Any]:
            limits = [part for part in (qp.b, qp.h, qp.ub) if part is not None]
            right = np.concatenate(limits if qp.lb is None else [*limits, -qp.lb])

            def solve() -> Any:
                solver.update(q=qp.q, b=right)
                return solver.solve()

            return solve

        return call

    return Contender(
        "clarabel",
        lambda eps: {"tol_feas": eps, "tol_gap_abs": eps, "tol_gap_rel": eps},
        sparse=True,
        own=own,
        inside=lambda found: found.solve_time,
        warm=warm,
    )


def contenders() -> list[Contender]:
    """All that are installed, ours first.

    Raises:
        ModuleNotFoundError: One is missing: `pip install --group bench-control`.
    """
    return [make() for make in (_ours, _quadprog, _daqp, _piqp, _proxqp, _osqp, _clarabel)]
