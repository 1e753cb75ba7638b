"""Whatever the units, rank or plant: what ends as done is the optimum, by a solver that others wrote."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge import refine
from sage_edge.plugins.control import ControlPlugin
from tests.oracles import reference_qp

PLUGIN = ControlPlugin()
INF = np.inf
SEEDS = st.integers(0, 2**32)


def refined(document):
    """The reason, the answer and its details."""
    ended = refine(PLUGIN, PLUGIN.prepare(document))
    answer = PLUGIN.decode(ended.best)
    return ended.halt_reason, answer.array, answer.details


def some_qp(random, rank):
    """A feasible QP with equalities, limits that are missing, and rows that follow from others."""
    n, m = int(random.integers(2, 20)), int(random.integers(1, 20))
    G = random.standard_normal((int(rank * n), n))
    inside, A = random.standard_normal(n), random.standard_normal((m, n))
    if m > 4:
        A[-1], A[-2] = A[0], A[1] + A[2]
    low, high = A @ inside - random.uniform(0.05, 1, m), A @ inside + random.uniform(0.05, 1, m)
    equal = np.arange(m) % 7 == 3
    low[equal] = high[equal] = (A @ inside)[equal]
    low[(random.random(m) < 0.3) & ~equal] = -INF
    box = inside - random.uniform(0.1, 2, n), inside + random.uniform(0.1, 2, n)
    q = random.standard_normal(n) * 10 ** random.uniform(-1, 1)
    return G.T @ G, q, A, low, high, *box


@pytest.mark.parametrize("rank", [1.0, 0.5, 0.0], ids=["strictly convex", "semidefinite", "linear"])
@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_a_qp_ends_at_its_optimum_in_any_units_of_cost_variables_and_rows(rank, seed):
    random = np.random.default_rng(seed)
    P, q, A, low, high, lb, ub = some_qp(random, rank)
    n, m = len(q), len(low)
    rows = np.vstack([A, np.eye(n)])
    lower, upper = np.concatenate([low, lb]), np.concatenate([high, ub])
    known = reference_qp.solve(P, q, rows, lower, upper)
    if known is None:
        return  # the other solver gave up
    unit, of_row = 10 ** random.uniform(-2, 2, n), 10 ** random.uniform(-2, 2, m)
    cost = 10 ** random.uniform(-8, 8)
    document = {"kind": "qp", "P": cost * unit[:, None] * P * unit, "q": cost * unit * q}
    document |= {"A": of_row[:, None] * A * unit, "l": of_row * low, "u": of_row * high}
    reason, x, details = refined(document | {"lb": lb / unit, "ub": ub / unit})
    assert np.all(x >= lb / unit)
    assert np.all(x <= ub / unit)
    if reason != "feasible":  # a few degenerate ones are cut short, and say so
        assert reason == "max_steps"
        return
    x = unit * x
    assert details["gap"] <= 1e-3
    # A violation of 1e-4 of what limits bound may be worth as much again.
    objective, size = 0.5 * x @ P @ x + q @ x, max(abs(0.5 * known[0] @ P @ known[0]), abs(q @ known[0]))
    assert abs(objective - known[1]) <= 1.5e-3 * max(abs(known[1]), 1e-2 * size)


def uncondensed(A, B, Q, R, N, x0, x_max, u_max):
    """The same problem with states among the variables: its least cost, by the other solver."""
    nx, nu = B.shape
    w = nx + nu
    P = 2 * np.kron(np.eye(N), np.block([[Q, np.zeros((nx, nu))], [np.zeros((nu, nx)), R]]))
    rows, right = np.zeros((N * nx, N * w)), np.zeros(N * nx)
    for k in range(N):
        at = k * w
        rows[k * nx : (k + 1) * nx, at : at + nx] = np.eye(nx)
        rows[k * nx : (k + 1) * nx, at + nx : at + w] = -B
        if k:
            rows[k * nx : (k + 1) * nx, at - w : at - nu] = -A
    right[:nx] = A @ x0
    most = np.tile(np.concatenate([x_max, u_max]), N)
    lower, upper = np.concatenate([right, -most]), np.concatenate([right, most])
    known = reference_qp.solve(P, np.zeros(N * w), np.vstack([rows, np.eye(N * w)]), lower, upper)
    return None if known is None else known[1]


@given(seed=SEEDS, radius=st.sampled_from([0.5, 0.95, 1.05, 1.2, 1.5]), N=st.sampled_from([5, 20, 40]))
@settings(max_examples=100, deadline=None)
def test_an_mpc_ends_at_its_optimum_stable_or_not_in_any_units(seed, radius, N):
    random = np.random.default_rng(seed)
    nx, nu = int(random.integers(1, 5)), int(random.integers(1, 3))
    A, B = random.standard_normal((nx, nx)), random.standard_normal((nx, nu))
    A *= radius / np.abs(np.linalg.eigvals(A)).max()
    Q, R = np.diag(10 ** random.uniform(-2, 2, nx)), np.diag(10 ** random.uniform(-2, 1, nu))
    x0, to_go = random.standard_normal(nx), Q
    for _ in range(200):
        gain = np.linalg.solve(R + B.T @ to_go @ B, B.T @ to_go @ A)
        to_go = Q + A.T @ to_go @ (A - B @ gain)
    states = [x0]
    for _ in range(N):
        states.append((A - B @ gain) @ states[-1])
    u_max = np.abs(states @ gain.T).max(axis=0) * random.uniform(0.7, 1.1) + 1e-3
    x_max = np.where(random.random(nx) < 0.3, np.abs(states).max(axis=0) * 1.05, INF)
    known = uncondensed(A, B, Q, R, N, x0, x_max, u_max)
    of_x, of_u, cost = (
        10 ** random.uniform(-2, 2, nx),
        10 ** random.uniform(-2, 2, nu),
        10 ** random.uniform(-8, 8),
    )
    document = {"kind": "mpc", "A": A * of_x / of_x[:, None], "B": B * of_u / of_x[:, None], "N": N}
    document |= {"Q": cost * of_x**2 * np.diag(Q), "R": cost * of_u**2 * np.diag(R), "x0": x0 / of_x}
    document |= {"x_min": -x_max / of_x, "x_max": x_max / of_x, "u_min": -u_max / of_u, "u_max": u_max / of_u}
    reason, u, _ = refined(document)
    assert np.all(np.abs(u) <= u_max / of_u)
    if known is None:  # no way to keep the limits, or the other solver gave up
        return
    assert reason == "feasible"
    x, total = x0, 0.0
    for step in u * of_u:
        x = A @ x + B @ step
        total += x @ Q @ x + step @ R @ step
    assert total == pytest.approx(known, rel=1.5e-3)


@pytest.mark.parametrize(("a", "N"), [(1.1, 100), (1.5, 50), (1.5, 200), (1.05, 800)])
def test_an_unstable_plant_over_a_long_horizon_is_solved_to_the_riccati_cost(a, N):
    to_go, gains = 1.0, []
    for _ in range(N):
        gains.append(a * to_go / (1 + to_go))
        to_go = 1 + a * a * to_go - a * to_go * gains[-1]
    reason, u, details = refined(
        {"kind": "mpc", "A": [[a]], "B": [[1]], "Q": [1], "R": [1], "N": N, "x0": [1]}
    )
    states, inputs = np.array(details["x"])[:, 0], u[:, 0]
    assert reason == "feasible"
    assert np.sum(states[1:] ** 2) + np.sum(inputs**2) == pytest.approx(to_go - 1, rel=1e-9)


@given(apart=st.floats(-8, 0), size=st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_nearly_infeasible_limits_end_with_a_certificate_that_the_answer_carries(apart, size):
    d = 10.0 ** (apart + size)
    document = {"kind": "qp", "P": [[0]], "q": [1], "A": [[1], [1]], "l": [None, 10.0**size + d]}
    reason, _, details = refined(document | {"u": [10.0**size, None], "eps": d / 100})
    assert reason == "diverged"
    y = details["certificate"]["vector"]
    assert details["certificate"]["of"] == "primal_infeasible"
    assert abs(y[0] + y[1]) <= 1e-9
    assert y[0] > 0 > y[1]


@given(apart=st.floats(-8, 0))
@settings(max_examples=20, deadline=None)
def test_nearly_infeasible_limits_that_can_be_kept_are(apart):
    d = 10.0**apart
    document = {"kind": "qp", "P": [[1, 0], [0, 1]], "q": [1, 2], "A": [[1, 1], [1, 1]]}
    reason, x, details = refined(document | {"l": [1, None], "u": [None, 1 + d], "eps": 1e-6})
    assert reason == "feasible"
    np.testing.assert_allclose(x, [1, 0], atol=1e-5)
    assert details["certificate"] is None


@pytest.mark.parametrize("eps", [1e-3, 1e-6, 1e-9])
def test_the_eps_of_a_document_is_the_gap_at_which_it_ends(eps):
    random = np.random.default_rng(1)
    P, q, A, low, high, lb, ub = some_qp(random, 1.0)
    document = {"kind": "qp", "P": P, "q": q, "A": A, "l": low, "u": high, "lb": lb, "ub": ub, "eps": eps}
    reason, _, details = refined(document)
    assert reason == "feasible"
    assert details["gap"] <= eps


def test_the_answer_of_a_qp_lies_between_its_bounds_to_the_bit_after_every_number_of_steps():
    document = {"kind": "qp", "P": [[0, 0], [0, 0]], "q": [-1, -2], "A": [[1, 1]], "u": [1], "lb": [0, 0]}
    for steps in range(8):
        plugin = ControlPlugin({"halt_max_steps": steps})
        x = plugin.decode(refine(plugin, plugin.prepare(document)).best).array
        assert np.all(x >= 0)


def test_a_warm_start_is_dropped_when_a_cold_one_is_better():
    plugin = ControlPlugin()
    mpc = {"kind": "mpc", "A": [[1.0, 0.1], [0.0, 1.0]], "B": [[0.005], [0.1]], "Q": [1.0, 0.1], "R": [0.1]}
    mpc |= {"N": 10, "u_min": [-1.0], "u_max": [1.0]}
    wild = refine(plugin, plugin.prepare(mpc | {"x0": [1e6, 1e6]}))  # a reading from a broken sensor
    problem = plugin.prepare(mpc | {"x0": [0.1, 0.0]})
    last = wild.last.meta["problem"], wild.last.meta["iterate"]
    assert problem.first_after(*last).E <= problem.first().E
