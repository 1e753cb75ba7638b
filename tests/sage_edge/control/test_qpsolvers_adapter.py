import numpy as np
import pytest

from sage_edge.control import qpsolvers_adapter, solve_qp

qpsolvers = pytest.importorskip("qpsolvers", reason="needs qpsolvers: pip install --group bench-control")


@pytest.fixture(autouse=True)
def _registered():
    qpsolvers_adapter.register()


def make(*, G=True, A=True, box=True):
    random = np.random.default_rng(0)
    P = random.standard_normal((5, 5))
    return qpsolvers.Problem(
        P.T @ P + np.eye(5),
        random.standard_normal(5) * 5,
        random.standard_normal((4, 5)) if G else None,
        np.full(4, 0.3) if G else None,
        random.standard_normal((2, 5)) if A else None,
        np.array([0.1, -0.2]) if A else None,
        np.full(5, -1.0) if box else None,
        np.full(5, 1.0) if box else None,
    )


@pytest.mark.parametrize("blocks", [{}, {"G": False}, {"A": False}, {"box": False}, {"G": False, "A": False}])
def test_qpsolvers_finds_the_solver_by_name_and_agrees_that_its_answers_are_optimal(blocks):
    solution = qpsolvers.solve_problem(make(**blocks), solver="sage", eps=1e-9)
    assert solution.is_optimal(1e-6)
    assert "sage" in qpsolvers.available_solvers


def test_an_infeasible_problem_is_not_found_and_keeps_its_certificate():
    problem = qpsolvers.Problem(np.eye(1), np.zeros(1), np.array([[1.0], [-1.0]]), np.array([-1.0, -1.0]))
    solution = qpsolvers.solve_problem(problem, solver="sage")
    assert not solution.found
    assert solution.extras["status"] == "primal_infeasible"
    assert solution.extras["certificate"] is not None


def test_the_adapter_gives_what_solve_qp_gives():
    problem = make(A=False, box=False)
    solution = qpsolvers.solve_problem(problem, solver="sage")
    assert np.array_equal(solution.x, solve_qp(problem.P, problem.q, problem.G, None, problem.h).x)
