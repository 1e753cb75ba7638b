"""Quadratic programs: one call, from arrays to a solution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sage_edge import native
from sage_edge.errors import ShapeError

_NAMES = ("P", "q", "A", "l", "u", "lb", "ub", "x0", "y0")


def solve_qp(
    P: ArrayLike,
    q: ArrayLike,
    A: ArrayLike | None = None,
    l: ArrayLike | None = None,
    u: ArrayLike | None = None,
    lb: ArrayLike | None = None,
    ub: ArrayLike | None = None,
    *,
    x0: ArrayLike | None = None,
    y0: ArrayLike | None = None,
    eps: float = 1e-3,
    eps_rel: float = 0.0,
    max_iter: int = 4000,
) -> native.QpSolution:
    """Minimise 1/2 x'Px + q'x subject to l <= A x <= u and lb <= x <= ub.

    For many problems with the same ``P`` and ``A``, ``native.QpSolver`` keeps what depends on these alone.

    Args:
        P: [n, n], symmetric positive semidefinite.
        q: [n].
        A: [m, n]; an equality is a row with ``l == u``.
        l: [m], ``-inf`` where a row has no lower limit; None: no lower limits.
        u: [m], as ``l``.
        lb: [n], lower limits of ``x``, as ``l``.
        ub: [n], upper limits of ``x``.
        x0: [n], a point to begin with.
        y0: [m + n], multipliers to begin with, as in a solution's ``y``.
        eps: Bound of the primal residual, the dual residual and the duality gap, in the problem's units.
        eps_rel: Added to that bound: this times the size of the terms that a residual is a difference of.
        max_iter: Most iterations, which bounds the time.

    Returns:
        The solution; ``status`` says whether it is one, and ``certificate`` why there can be none.

    Raises:
        ShapeError: An array is not of numbers, or its shape does not fit the others.
        ProblemError: ``P`` is not convex (the message has its smallest eigenvalue) or not symmetric, a
            number is NaN, or a lower limit is above its upper one.
        ConfigError: ``eps``, ``eps_rel`` or ``max_iter`` is negative.
    """
    arrays: list[Any] = [P, q, A, l, u, lb, ub, x0, y0]
    try:
        return _solve(arrays, eps, eps_rel, max_iter)
    except (ShapeError, TypeError):
        pass  # lists, other types, other layouts: copies may fit, or the core says what does not
    return _solve(
        [_doubles(name, array) for name, array in zip(_NAMES, arrays, strict=True)], eps, eps_rel, max_iter
    )


def _solve(arrays: list[Any], eps: float, eps_rel: float, max_iter: int) -> native.QpSolution:
    P, q, A, l, u, lb, ub, x0, y0 = arrays
    return native.solve_qp(P, q, A, l, u, lb, ub, x0=x0, y0=y0, eps=eps, eps_rel=eps_rel, max_iter=max_iter)


def _doubles(name: str, array: Any) -> NDArray[np.float64] | None:
    """A contiguous float64 copy, or the array itself if it is one."""
    if array is None:
        return None
    try:
        return np.ascontiguousarray(array, np.float64)
    except (TypeError, ValueError) as exc:
        raise ShapeError(f"{name}: expected an array of numbers, got {type(array).__name__}") from exc
