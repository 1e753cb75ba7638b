"""MPC against what it must equal: the unlimited Riccati law, an exact solution, and its own model."""

from __future__ import annotations

import numpy as np
import pytest

from sage_edge.control import MPC, MPC_HALTING, solve_qp
from sage_edge.errors import ParameterError, ProblemError, ShapeError
from tests.fakes import FakeClock

A = np.array([[1.0, 0.1], [0.0, 1.0]])
B = np.array([[0.005], [0.1]])
Q, R = np.diag([1.0, 0.1]), np.array([[0.1]])
EXACT = MPC_HALTING.replace(gap_tolerance=1e-9, max_steps=400, eps=0.0)


def riccati(horizon):
    """Cost-to-go and gain of the unlimited problem over a horizon, both costs without the factor 1/2."""
    P = Q
    for _ in range(horizon):
        K = np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
        P = Q + A.T @ P @ (A - B @ K)
    return P, K


def integrator(**changes):
    options = {"u_min": [-1.0], "u_max": [1.0], "x_min": [-np.inf, -0.5], "x_max": [np.inf, 0.5]} | changes
    return MPC(A, B, Q, R, 15, **options)


def test_without_limits_the_first_input_is_that_of_the_riccati_recursion():
    mpc = MPC(A, B, Q, R, 15)
    _, K = riccati(15)
    for x0 in ([1.0, 0.0], [-0.3, 2.0]):
        found = mpc.solve(x0, policy=EXACT)
        np.testing.assert_allclose(found.u[0], -K @ x0, atol=1e-5)


def test_with_the_cost_to_go_at_the_end_any_horizon_gives_the_same_input():
    P, K = riccati(500)
    for horizon in (1, 3, 20):
        found = MPC(A, B, Q, R, horizon, QN=P).solve([1.0, 0.5], policy=EXACT)
        np.testing.assert_allclose(found.u[0], -K @ [1.0, 0.5], atol=1e-5)


def sparse_solution(x0):
    """The same problem with states and inputs as variables, the model as equalities."""
    N, nx, nu = 15, 2, 1
    P = 2 * np.kron(np.eye(N), np.block([[Q, np.zeros((nx, nu))], [np.zeros((nu, nx)), R]]))
    rows, right = np.zeros((N * nx, N * (nx + nu))), np.zeros(N * nx)
    for k in range(N):
        at, before = k * (nx + nu), (k - 1) * (nx + nu)
        rows[k * nx : (k + 1) * nx, at : at + nx] = np.eye(nx)
        rows[k * nx : (k + 1) * nx, at + nx : at + nx + nu] = -B
        if k:
            rows[k * nx : (k + 1) * nx, before : before + nx] = -A
    right[:nx] = A @ x0
    low, high = np.tile([-np.inf, -0.5, -1.0], N), np.tile([np.inf, 0.5, 1.0], N)
    z = solve_qp(P, np.zeros(N * 3), rows, right, right, low, high, eps=1e-8).x
    return z.reshape(N, 3)[:, 2:]


@pytest.mark.parametrize("x0", [(1.0, 0.0), (-2.0, 0.4), (0.3, -0.5)])
def test_with_limits_the_inputs_are_those_of_the_uncondensed_problem(x0):
    found = integrator().solve(x0, policy=EXACT)
    np.testing.assert_allclose(found.u, sparse_solution(np.array(x0)), atol=1e-4)


@pytest.mark.parametrize(
    "policy",
    [
        MPC_HALTING,
        MPC_HALTING.replace(max_steps=0),
        MPC_HALTING.replace(max_steps=1),
        MPC_HALTING.replace(halt_when_feasible=False, eps=1.0),
        MPC_HALTING.replace(deadline_ns=0),
        MPC_HALTING.replace(budget_us=0.0),
        MPC_HALTING.replace(target_E_norm=0.0),
    ],
    ids=["feasible", "none", "max_steps", "slope", "timeout", "budget", "confidence"],
)
def test_under_every_halt_reason_inputs_are_between_bounds_and_states_follow_from_them(policy):
    mpc, x0 = integrator(), np.array([2.0, 0.4])
    found = mpc.solve(x0, policy=policy)
    assert np.all(np.abs(found.u) <= 1.0)
    state = x0
    for u, expected in zip(found.u, found.x[1:], strict=True):
        state = A @ state + B @ u
        np.testing.assert_allclose(expected, state, atol=1e-12)
    outside = max(0.0, np.max(np.abs(found.x[1:, 1]) - 0.5))
    assert found.violation == pytest.approx(outside, abs=1e-9)
    assert found.feasible == (outside <= mpc.eps)


def test_warm_starts_need_fewer_iterations_on_the_way():
    mpc, state, warm, cold_iterations, warm_iterations = integrator(), np.array([1.0, 0.2]), None, 0, 0
    for _ in range(40):
        found = mpc.solve(state, warm=warm)
        cold_iterations += mpc.solve(state).iterations
        warm_iterations += found.iterations
        state, warm = A @ state + B @ found.u[0], found.warm
    assert warm_iterations < cold_iterations


def test_a_state_that_cannot_be_saved_is_flagged_with_its_violation():
    found = integrator().solve([0.0, 3.0])
    assert not found.feasible
    assert found.violation > 1.0
    assert np.all(np.abs(found.u) <= 1.0)


def test_the_reference_is_reached():
    mpc, state, warm = integrator(), np.array([0.0, 0.0]), None
    for _ in range(150):
        found = mpc.solve(state, [1.0, 0.0], warm=warm)
        state, warm = A @ state + B @ found.u[0], found.warm
    np.testing.assert_allclose(state, [1.0, 0.0], atol=5e-3)


def test_a_deadline_in_the_past_gives_the_warm_start_at_once():
    found = integrator().solve([1.0, 0.0], deadline_ms=1e-6, clock=FakeClock(monotonic_ns=0))
    assert found.halt_reason in ("timeout", "feasible")
    assert found.iterations <= 500


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"N": 0}, ParameterError, "N: expected a horizon of at least 1 step, got 0"),
        ({"A": [[1.0]]}, ShapeError, r"A: expected \[2, 2\] to fit B"),
        ({"Q": [1.0]}, ShapeError, r"Q: expected \[2, 2\] or its diagonal"),
        ({"R": [-1.0], "Q": [0.0, 0.0]}, ProblemError, "smallest eigenvalue"),
        ({"B": [[0.0], [float("nan")]]}, ShapeError, "B: expected finite numbers"),
        ({"u_min": [1.0], "u_max": [-1.0]}, ParameterError, "u_min: expected at most u_max"),
        ({"x_min": [1.0]}, ShapeError, r"x_min, x_max: expected \[2\]"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_with_what_is_wrong(changes, error, message):
    good = {"A": A, "B": B, "Q": Q, "R": R, "N": 5}
    with pytest.raises(error, match=message):
        MPC(**(good | changes))


def test_a_state_of_the_wrong_size_is_refused():
    with pytest.raises(ShapeError, match=r"x0: expected \[2\], got \[3\]"):
        integrator().solve([1.0, 2.0, 3.0])
