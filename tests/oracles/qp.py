"""Quadratic programs by brute force: every set of active limits is tried, the best feasible point wins."""

from __future__ import annotations

from itertools import product

import numpy as np


def enumerate_qp(P, q, rows, lower, upper):
    """The minimiser of 1/2 x'Px + q'x subject to lower <= rows @ x <= upper, for P positive definite.

    Solves the equality-constrained problem of each choice of (free, at lower, at upper) for every row; only
    for a handful of rows.

    Returns:
        float64 [n], or None when no point is feasible.
    """
    best, best_objective = None, np.inf
    for sides in product((0, -1, 1), repeat=len(rows)):
        active = np.flatnonzero(sides)
        bound = np.where(np.array(sides) < 0, lower, upper)[active]
        if not np.all(np.isfinite(bound)):
            continue
        N = rows[active]
        kkt = np.block([[P, N.T], [N, np.zeros((len(active), len(active)))]])
        if len(active) and np.linalg.matrix_rank(N) < len(active):  # older NumPy knows no rank of nothing
            continue
        x = np.linalg.solve(kkt, np.concatenate([-q, bound]))[: len(q)]
        objective = 0.5 * x @ P @ x + q @ x
        outside = np.maximum(rows @ x - upper, lower - rows @ x)
        if np.max(outside, initial=0.0) < 1e-8 and objective < best_objective:
            best, best_objective = x, objective
    return best


def optimality(P, q, A, lower, upper, x, y):
    """Primal, dual and gap residuals of x and its multipliers, from the definition.

    Args:
        P, q, A: As usual; ``lower`` and ``upper`` are [m + n], those of the rows of A and then those of x.
        x: [n].
        y: [m + n], positive at an upper limit.
    """
    rows = np.vstack([A, np.eye(len(q))])
    pulls = y != 0
    support = y[pulls] @ np.where(y > 0, upper, lower)[pulls]
    primal = np.max(np.maximum(rows @ x - upper, lower - rows @ x), initial=0.0)
    dual = np.max(np.abs(P @ x + q + rows.T @ y))
    return primal, dual, abs(x @ P @ x + q @ x + support)
