"""Calls the solver through the public ``qpsolvers`` package, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.control.qp import solve_qp

if TYPE_CHECKING:
    from qpsolvers import Problem, Solution

#: What ``qpsolvers`` calls us.
NAME = "sage"


def register() -> None:
    """Make ``qpsolvers.solve_problem(problem, solver="sage")`` and ``solve_qp(..., solver="sage")`` work.

    Keyword arguments go to ``sage_edge.control.solve_qp``; ``initvals`` is its ``x0``. May be called again.

    Raises:
        ModuleNotFoundError: The package ``qpsolvers`` is not installed.
    """
    import qpsolvers
    from qpsolvers.solvers import solve_function

    solve_function[NAME] = solve_problem
    for names in (qpsolvers.available_solvers, qpsolvers.dense_solvers):
        if NAME not in names:
            names.append(NAME)


def solve_problem(
    problem: Problem, initvals: NDArray[np.float64] | None = None, verbose: bool = False, **options: Any
) -> Solution:
    """Solve a problem of ``qpsolvers``: 1/2 x'Px + q'x subject to G x <= h, A x = b and lb <= x <= ub.

    Args:
        problem: Dense matrices.
        initvals: float64 [n], a point to begin with.
        verbose: Ignored: there is nothing to say.
        options: For ``sage_edge.control.solve_qp``.

    Returns:
        The solution; ``extras`` has ``status``, ``iterations`` and ``certificate``.
    """
    from qpsolvers import Solution

    P, q, G, h, A, b, lb, ub = problem.unpack_as_dense()
    rows, lower, upper = _stack(G, h, A, b)
    found = solve_qp(P, q, rows, lower, upper, lb, ub, x0=initvals, **options)
    solution = Solution(problem)
    solution.found = found.status == "solved"
    solution.extras = {
        "status": found.status,
        "iterations": found.iterations,
        "certificate": found.certificate,
    }
    if solution.found:
        inequalities = 0 if h is None else len(h)
        used = 0 if rows is None else len(rows)
        multipliers = found.y
        solution.x, solution.obj = found.x, found.objective
        solution.z, solution.y = multipliers[:inequalities], multipliers[inequalities:used]
        solution.z_box = multipliers[used:] if lb is not None or ub is not None else np.empty(0)
    return solution


def _stack(G: Any, h: Any, A: Any, b: Any) -> tuple[Any, Any, Any]:
    """Inequalities over equalities, as rows with two limits."""
    if A is None:
        return G, None, h
    if G is None:
        return A, b, b
    return np.vstack([G, A]), np.concatenate([np.full(len(h), -np.inf), b]), np.concatenate([h, b])
