"""Quadratic programs by an interior-point method that others wrote: nothing of it is ours."""

from __future__ import annotations

import warnings

import numpy as np
import qpsolvers


def solve(P, q, A, lower, upper):
    """The minimiser of 1/2 x'Px + q'x subject to lower <= A x <= upper, by Clarabel.

    Returns:
        float64 [n] and the objective, or None when no solution was found.
    """
    from scipy.sparse import csc_matrix

    equal = lower == upper
    above, below = np.isfinite(upper) & ~equal, np.isfinite(lower) & ~equal
    G, h = np.vstack([A[above], -A[below]]), np.concatenate([upper[above], -lower[below]])
    problem = qpsolvers.Problem(csc_matrix(P), q, csc_matrix(G), h, csc_matrix(A[equal]), lower[equal])
    tolerances = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of problems without a solution
        solution = qpsolvers.solve_problem(problem, solver="clarabel", **tolerances)
    if not solution.found:
        return None
    x = solution.x
    return x, float(0.5 * x @ P @ x + q @ x)
