import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.control import solve_qp
from sage_edge.errors import ConfigError, ProblemError, ShapeError
from sage_edge.native import QpSolver, ThreadPool, advance_many
from tests.oracles.qp import enumerate_qp, optimality

INF = np.inf
NAMES = ("P", "q", "G", "h", "A", "b", "lb", "ub")


def problem(seed, n, m, *, rank=None, box=True):
    """A feasible QP (P, q, A, lo, hi, lb, ub) with some equalities and some limits missing."""
    random = np.random.default_rng(seed)
    G = random.standard_normal((n if rank is None else rank, n))
    P = G.T @ G + (0.1 * np.eye(n) if rank is None else 0)
    inside = 0.5 * random.standard_normal(n)
    A = random.standard_normal((m, n))
    lo, hi = A @ inside - random.uniform(0.05, 1, m), A @ inside + random.uniform(0.05, 1, m)
    kind = random.integers(0, 6, m)
    kind[n // 2 :] = np.maximum(kind[n // 2 :], 1)  # never more equalities than variables
    lo[kind == 0] = hi[kind == 0] = (A @ inside)[kind == 0]
    lo[kind == 1], hi[kind == 2] = -INF, INF
    lb, ub = (inside - 0.7, inside + 0.9) if box else (None, None)
    return P, 5 * random.standard_normal(n), A, lo, hi, lb, ub


def limits(qp):
    """Limits of the rows and the box in one."""
    P, _, _, lo, hi, lb, ub = qp
    none = np.full(len(P), INF)
    return np.concatenate([lo, -none if lb is None else lb]), np.concatenate([hi, none if ub is None else ub])


@given(seed=st.integers(0, 2**32), n=st.integers(1, 5), m=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_small_strictly_convex_qp_has_the_solution_that_trying_every_active_set_finds(seed, n, m):
    P, q, A, lo, hi, _, _ = qp = problem(seed, n, m, box=False)
    expected = enumerate_qp(P, q, A, lo, hi)
    found = solve_qp(*qp, eps=1e-8)
    assert found.status == "solved"
    np.testing.assert_allclose(found.x, expected, atol=1e-6)


@given(seed=st.integers(0, 2**32), n=st.integers(1, 40), m=st.integers(0, 60), box=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_solution_meets_the_optimality_conditions_and_reports_its_residuals(seed, n, m, box):
    P, q, A, *_ = qp = problem(seed, n, m, box=box)
    found = solve_qp(*qp, eps=1e-6)
    assert found.status == "solved"
    residuals = optimality(P, q, A, *limits(qp), found.x, found.y)
    assert max(residuals) <= 2e-6
    reported = (found.primal_residual, found.dual_residual, found.gap)
    np.testing.assert_allclose(reported, residuals, atol=1e-9 * (1 + abs(found.objective)))


@given(seed=st.integers(0, 2**32), n=st.integers(4, 30), m=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_a_qp_that_is_not_strictly_convex_is_solved_too(seed, n, m):
    P, q, A, *_ = qp = problem(seed, n, m, rank=n // 2)
    found = solve_qp(*qp, eps=1e-4, max_iter=20_000)
    assert found.status == "solved"
    assert max(optimality(P, q, A, *limits(qp), found.x, found.y)) <= 2e-4


@given(seed=st.integers(0, 2**32), n=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_projection_onto_a_polytope_is_idempotent_and_never_widens_a_distance(seed, n):
    _, _, A, lo, hi, lb, ub = problem(seed, n, n)
    solver = QpSolver(np.eye(n), A)
    first, second = np.random.default_rng(seed + 1).standard_normal((2, n)) * 3

    def project(point):
        return solver.solve(-point, lo, hi, lb, ub, eps=1e-9).x.copy()

    np.testing.assert_allclose(project(project(first)), project(first), atol=1e-8)
    assert np.linalg.norm(project(first) - project(second)) <= np.linalg.norm(first - second) + 1e-8


@pytest.mark.parametrize("curvature", [1.0, 0.0])
@pytest.mark.parametrize("seed", range(5))
def test_limits_that_contradict_each_other_are_certified(curvature, seed):
    random = np.random.default_rng(seed)
    n = 6
    A = random.standard_normal((4, n))
    A = np.vstack([A, -A.sum(axis=0)])  # rows that add up to zero, each at least 0.1
    q = curvature * random.standard_normal(n)
    found = solve_qp(curvature * np.eye(n), q, A, np.full(5, 0.1), max_iter=20_000)
    assert found.status == "primal_infeasible"
    y = found.certificate[:5]
    assert np.all(found.certificate[5:] == 0)
    np.testing.assert_allclose(A.T @ y, 0, atol=1e-5 * np.abs(y).max())
    assert np.all(y <= 1e-9)
    assert 0.1 * y.sum() < 0


def test_limits_that_cross_by_rounding_alone_are_no_contradiction():
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    lower, upper = np.array([-INF, 2e-17, 5.0, 3e-17]), np.array([1e-17, INF, INF, INF])
    found = solve_qp(np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([-3.0, 1.0]), rows, lower, upper)
    assert found.status == "solved"
    np.testing.assert_allclose(found.x, [0.0, 5.0], atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_a_descent_without_end_is_certified(seed):
    P, q, A, lo, _, _, _ = problem(seed, 8, 3, rank=3, box=False)
    lo, hi = np.minimum(lo, 0), np.full(3, INF)
    found = solve_qp(P, q, A, np.where(np.isfinite(lo), lo, -1.0), hi, max_iter=20_000)
    assert found.status == "dual_infeasible"
    d = found.certificate
    np.testing.assert_allclose(P @ d, 0, atol=1e-4)
    assert q @ d < 0
    assert np.all(A @ d >= -1e-4)


@pytest.mark.parametrize("rank", [None, 6])
def test_a_batch_gives_the_bits_of_each_problem_alone_wherever_it_stands_on_any_number_of_threads(rank):
    P, q, A, lo, hi, lb, ub = problem(3, 12, 9, rank=rank)
    many = q + np.random.default_rng(0).standard_normal((17, 12))
    alone = [QpSolver(P, A).solve(each, lo, hi, lb, ub) for each in many]
    x, y = np.array([one.x for one in alone]), np.array([one.y for one in alone])
    solver = QpSolver(P, A)
    for threads in (1, 2, 5):
        for order in (slice(None), slice(None, None, -1)):
            batch = solver.solve_many(many[order].copy(), lo, hi, lb, ub, pool=ThreadPool(threads))
            assert np.array_equal(batch.x, x[order])
            assert np.array_equal(batch.y, y[order])
            assert batch.status == ["solved"] * 17


def test_a_batch_takes_limits_for_all_or_a_row_for_each():
    P, q, A, lo, hi, lb, ub = problem(5, 6, 4)
    solver = QpSolver(P, A)
    many = np.tile(q, (3, 1))
    shared = solver.solve_many(many, lo, hi, lb, ub)
    rows = solver.solve_many(many, *(np.tile(limit, (3, 1)) for limit in (lo, hi, lb, ub)))
    assert np.array_equal(shared.x, rows.x)
    with pytest.raises(ShapeError, match=r"u: expected .*3, 4"):
        solver.solve_many(many, lo, np.tile(hi, (2, 1)))


def test_a_warm_start_at_the_solution_changes_no_limit():
    P, q, A, lo, hi, lb, ub = problem(8, 20, 30)
    solver = QpSolver(P, A)
    cold = solver.solve(q, lo, hi, lb, ub)
    warm = solver.solve(q, lo, hi, lb, ub, y0=cold.y.copy())
    assert cold.iterations > 3
    assert warm.iterations == 0
    np.testing.assert_allclose(warm.x, cold.x, atol=1e-9)


def test_a_warm_start_with_nonsense_leads_to_the_same_solution():
    P, q, A, lo, hi, lb, ub = problem(8, 20, 30)
    solver = QpSolver(P, A)
    cold = solver.solve(q, lo, hi, lb, ub)
    wild = np.random.default_rng(0).standard_normal(50)
    np.testing.assert_allclose(solver.solve(q, lo, hi, lb, ub, y0=wild).x, cold.x, atol=1e-8)


@pytest.mark.parametrize("rank", [None, 6])
def test_a_run_comes_to_the_solution_and_knows_how_far_it_is(rank):
    P, q, A, lo, hi, lb, ub = qp = problem(2, 12, 10, rank=rank)
    run = QpSolver(P, A).start(q, lo, hi, lb, ub, eps=1e-3)
    first = run.energy
    while run.energy > -4.0 and run.iterations < 5000:
        run.advance(10)
    assert run.energy <= -4.0 < first
    assert run.feasible
    residuals = optimality(P, q, A, *limits(qp), run.x, run.y)
    np.testing.assert_allclose((run.primal_residual, run.dual_residual), residuals[:2], atol=1e-12)
    assert run.objective == pytest.approx(solve_qp(*qp, eps=1e-6, max_iter=20_000).objective, rel=1e-2)


def test_a_copy_of_a_run_goes_its_own_way_and_a_loaded_point_is_taken_over():
    P, q, A, lo, hi, lb, ub = problem(2, 12, 10)
    run = QpSolver(P, A).start(q, lo, hi, lb, ub)
    run.advance(10)
    before = run.x
    copy = run.copy()
    copy.advance(60)
    assert np.array_equal(run.x, before)
    run.advance(60)
    assert np.array_equal(run.x, copy.x)
    run.load(before)
    np.testing.assert_allclose(run.x, before, atol=1e-14)  # one rounding to scaled units and back


def test_runs_advanced_together_make_the_steps_of_each_alone():
    P, q, A, lo, hi, lb, ub = problem(4, 10, 8)
    solver = QpSolver(P, A)
    runs = [solver.start(q + shift, lo, hi, lb, ub) for shift in range(7)]
    alone = [run.copy() for run in runs]
    advance_many(runs, 40, ThreadPool(3))
    for together, single in zip(runs, alone, strict=True):
        single.advance(40)
        assert np.array_equal(together.x, single.x)


def test_polishing_a_run_brings_it_to_the_solution():
    P, q, A, lo, hi, lb, ub = problem(2, 12, 10)
    solver = QpSolver(P, A)
    run = solver.start(q, lo, hi, lb, ub)
    run.advance(200)
    before = run.energy
    assert run.polish()
    assert run.energy < before
    np.testing.assert_allclose(run.x, solver.solve(q, lo, hi, lb, ub, eps=1e-9).x, atol=1e-7)


def test_a_run_starts_while_another_of_the_same_matrices_looks_for_its_exact_end():
    n, random = 400, np.random.default_rng(0)
    M = random.standard_normal((n, n))
    solver = QpSolver(M @ M.T / n + np.eye(n), random.standard_normal((n, n)))
    q, limit = random.standard_normal(n), np.full(n, 0.1)
    run = solver.start(q, -limit, limit)
    run.advance(20)

    def finish_s():
        began_s, copy = time.perf_counter(), run.copy()
        copy.finish()
        return time.perf_counter() - began_s

    def longest_start_s():
        ending, longest_s = threading.Thread(target=run.copy().finish), 0.0
        ending.start()
        while ending.is_alive():
            start_s = time.perf_counter()
            solver.start(q, -limit, limit)  # takes a thousandth of what the other does
            longest_s = max(longest_s, time.perf_counter() - start_s)
        return longest_s

    assert min(longest_start_s() for _ in range(5)) < min(finish_s() for _ in range(3)) / 2


def test_lists_and_other_dtypes_and_layouts_are_taken():
    P, q, A, lo, hi, lb, ub = problem(6, 5, 4)
    expected = solve_qp(P, q, A, lo, hi, lb, ub).x
    found = solve_qp(np.asfortranarray(P), q.tolist(), np.asfortranarray(A), lo, hi, lb, ub)
    np.testing.assert_array_equal(found.x, expected)
    assert solve_qp(np.eye(2, dtype=int), [-1, -2], ub=[0.5, 9]).x.tolist() == [0.5, 2.0]


def test_a_problem_that_needs_more_iterations_than_it_may_take_says_so():
    found = solve_qp(*problem(1, 30, 40, rank=15), eps=1e-9, max_iter=3)
    assert found.status == "max_iterations"
    assert found.iterations <= 3


NAN = float("nan")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((np.diag([1.0, -2.0]), [0, 0]), ProblemError, "smallest eigenvalue -2"),
        (([[1, 0.5], [0, 1]], [0, 0]), ProblemError, "symmetric"),
        (([[1, NAN], [NAN, 1]], [0, 0]), ProblemError, "P: expected finite"),
        ((np.eye(2), [0, NAN]), ProblemError, "q: expected finite"),
        ((np.eye(2), [0, 0], [[1, INF]]), ProblemError, "A: expected finite"),
        ((np.eye(2), [0, 0], [[1, 1]], [2], [1]), ProblemError, r"l, u: .*\[2, 1\] at 0"),
        ((np.eye(2), [0, 0], None, None, None, [0, NAN]), ProblemError, "lb, ub"),
        ((np.eye(2), [0, 0], None, None, None, None, [0, -INF]), ProblemError, "lb, ub: .* at 1"),
        ((np.eye(2), [0, 0, 0]), ShapeError, r"q: expected .*\[2\], got float64 \(3,\)"),
        ((np.ones((2, 3)), [0, 0]), ShapeError, "P: expected"),
        ((np.eye(2), [0, 0], np.eye(3)), ShapeError, "A: expected"),
        ((np.zeros((0, 0)), []), ShapeError, "P: expected"),
        ((np.eye(2), [0, 0], [[1, 1]], None, [1, 2]), ShapeError, "u: expected"),
        ((np.eye(2), "none"), ShapeError, "q: expected an array of numbers, got str"),
    ],
)
def test_what_has_no_meaning_is_refused_in_words(arguments, error, words):
    with pytest.raises(error, match=words):
        solve_qp(*arguments)


@pytest.mark.parametrize("options", [{"eps": -1.0}, {"eps": NAN}, {"eps_rel": -1.0}, {"max_iter": -1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        solve_qp(np.eye(2), [0, 0], **options)


def test_every_qp_of_the_problem_set_is_solved_to_its_reference(data_folder):
    path = data_folder / "control" / "mpc_qp.npz"
    if not path.is_file():
        pytest.skip("needs control/mpc_qp.npz in the data folder")
    with np.load(path) as stored:
        data = {key: stored[key] for key in stored.files}
    for name in sorted({key.split("/")[0] for key in data}):
        P, q, G, h, A, b, lb, ub = (
            data.get(f"{name}/{part}") for part in ["P", "q", "G", "h", "A", "b", "lb", "ub"]
        )
        rows = G if A is None else np.vstack([G, A])
        lower = np.full(len(h), -INF) if A is None else np.concatenate([np.full(len(h), -INF), b])
        upper = h if A is None else np.concatenate([h, b])
        qp = (P, q, rows, lower, upper, lb, ub)
        for eps in (1e-3, 1e-6):
            found = solve_qp(*qp, eps=eps)
            assert found.status == "solved", name
            assert max(optimality(P, q, rows, *limits(qp), found.x, found.y)) <= eps, name
            assert found.objective == pytest.approx(float(data[f"{name}/f_ref"]), abs=10 * eps), name
