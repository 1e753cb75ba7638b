"""Quadratic programs along a chain, against the dense solver, which knows nothing of bands or interiors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge import native
from sage_edge.errors import ShapeError


def dense(P, n, closed):
    full = np.zeros((n, n))
    for ahead in range(3):
        for i in range(n if closed else n - ahead):
            full[i, (i + ahead) % n] += P[ahead, i]
            full[(i + ahead) % n, i] += P[ahead, i] if ahead else 0.0
    return full


def rows_of(A, n, closed):
    full = np.zeros((len(A), n))
    first = np.arange(len(A)) - (1 if closed else 0)
    for k in range(3):
        full[np.arange(len(A)), (first + k) % n] = A[:, k]
    return full


def chain(pick, n, closed, *, with_rows, fixed):
    """A convex program with a solution: x = 0 keeps every row."""
    count = n if closed else n - 2
    roots, first = pick.standard_normal((count, 3)), np.arange(count) - (1 if closed else 0)
    P = np.zeros((3, n))
    for one in range(3):
        for ahead in range(3 - one):
            np.add.at(P[ahead], (first + one) % n, roots[:, one] * roots[:, one + ahead])
    lb, ub = -pick.random(n), pick.random(n)
    lb[:fixed] = ub[:fixed] = 0.0
    rows = ()
    if with_rows:
        rows = pick.standard_normal((count, 3)), -pick.random(count) - 0.01, pick.random(count) + 0.01
    return P, pick.standard_normal(n), lb, ub, rows


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(8, 60),
    closed=st.booleans(),
    with_rows=st.booleans(),
    fixed=st.integers(0, 3),
    exponent=st.integers(-6, 6),
)
def test_the_minimum_is_that_of_the_dense_solver_in_any_units(seed, n, closed, with_rows, fixed, exponent):
    P, q, lb, ub, rows = chain(np.random.default_rng(seed), n, closed, with_rows=with_rows, fixed=fixed)
    unit = 10.0**exponent
    x, cost = native.solve_chain_qp(unit * P, unit * q, lb, ub, *rows, closed=closed)
    full, limits = dense(P, n, closed), ()
    if rows:
        A, l, u = rows_of(rows[0], n, closed), rows[1], rows[2]
        limits = A, l, u
        assert np.maximum(l - A @ x, A @ x - u).max() < 1e-7
    assert np.maximum(lb - x, x - ub).max() <= 0
    best = native.solve_qp(full, q, *limits, lb=lb, ub=ub, eps=1e-9).x
    least = best @ full @ best / 2 + q @ best
    assert cost / unit == pytest.approx(x @ full @ x / 2 + q @ x, rel=1e-9, abs=1e-12)
    assert cost / unit == pytest.approx(least, rel=1e-6, abs=1e-9)


def test_rows_that_cannot_be_kept_give_a_compromise_between_the_bounds():
    n = 12
    P, q, lb, ub, _ = chain(np.random.default_rng(3), n, True, with_rows=False, fixed=0)
    A, low, high = np.tile([0.0, 1.0, 0.0], (n, 1)), np.full(n, 5.0), np.full(n, 6.0)
    x, cost = native.solve_chain_qp(P, q, lb, ub, A, low, high, closed=True)
    assert np.isfinite(x).all()
    assert np.isfinite(cost)
    assert np.maximum(lb - x, x - ub).max() <= 0


def test_a_chain_of_many_thousands_is_solved_as_exactly_as_a_short_one():
    n = 20_000
    P, q, lb, ub, _ = chain(np.random.default_rng(5), n, True, with_rows=False, fixed=0)
    x, _ = native.solve_chain_qp(P, q, lb, ub, closed=True)
    gradient = P[0] * x + q
    for ahead in (1, 2):
        gradient += P[ahead] * np.roll(x, -ahead) + np.roll(P[ahead] * x, ahead)
    # A point is the minimum where a step down the gradient, taken back between the bounds, leads nowhere.
    assert np.abs(np.clip(x - gradient, lb, ub) - x).max() < 1e-4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"P": np.zeros((2, 8))}, "P: expected"),
        ({"lb": np.zeros(7)}, "lb: expected"),
        ({"q": np.zeros(4)}, "q: expected"),
        ({"A": np.zeros((6, 3)), "l": np.zeros(6), "u": np.ones(6)}, "A: expected"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes, words):
    arrays = {"P": np.ones((3, 8)), "q": np.ones(8), "lb": -np.ones(8), "ub": np.ones(8)} | changes
    with pytest.raises(ShapeError, match=words):
        native.solve_chain_qp(**arrays, closed=True)
