"""QPs of model predictive control, beside the solvers that people use.

Needs `pip install --group bench-control` and the folder of problems (--data=DIR with mpc_qp.npz). Prints,
by family and tolerance:

* `common`: microseconds through one Python call, `qpsolvers.solve_problem`, cold: matrices as each solver
  takes them (dense, or sparse beforehand), set-up and solve.
* `own`: the solver's own Python call on data in its own format, cold; `inside`: what it says it took.
* `warm`: set up once, then new vectors with the same matrices: the problems of a family in turn, from
  whatever the solver keeps of the one before.
* `solved`: problems whose primal residual, dual residual and duality gap are within the tolerance, computed
  here from x and the multipliers, all absolute, and whose objective is that of the stored reference.

Then batches of 256 with the same matrices: microseconds per problem on one core, `solve_many` beside the best
that each rival does from one thread (warm where that is faster). TinyMPC takes dynamics and stage costs, not
P and G: none of these problems fits it. Contenders take turns, the order rotates; a problem's time is its
median over the rounds, and the table has the median and the p95 over the problems.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import qpsolvers

from benchmarks import report
from benchmarks.control.qp_rivals import QP, Contender, contenders
from sage_edge.control import qpsolvers_adapter
from sage_edge.native import QpSolver, ThreadPool

BATCH = 256
NAMES = ("P", "q", "G", "h", "A", "b", "lb", "ub")


class Problem(NamedTuple):
    """A QP and the objective of its stored reference."""

    qp: QP
    f_ref: float


def load(path: Path) -> dict[str, list[Problem]]:
    """Families of problems that share their matrices.

    The family with one problem gets seven more, whose limits are scaled by 0.86 to 1.14 (and its reference
    by the square, since its q is zero): otherwise every warm call would solve what it has just solved.
    """
    families: dict[str, list[Problem]] = {}
    with np.load(path) as stored:
        data = {key: stored[key] for key in stored.files}
    for name in sorted({key.split("/")[0] for key in data}):
        parts = (data.get(f"{name}/{part}") for part in NAMES)
        qp = QP(*(None if part is None else np.ascontiguousarray(part, np.float64) for part in parts))
        families.setdefault(name.rstrip("0123456789"), []).append(Problem(qp, float(data[f"{name}/f_ref"])))
    for problems in families.values():
        if len(problems) == 1 and not problems[0].qp.q.any():
            problems += [_scaled(problems[0], 1.0 + 0.02 * step) for step in (-7, -5, -3, 2, 4, 6, 7)]
    return families


def _scaled(problem: Problem, by: float) -> Problem:
    qp = problem.qp
    vectors = {name: None if (v := getattr(qp, name)) is None else by * v for name in ("h", "b", "lb", "ub")}
    return Problem(qp._replace(**vectors), by * by * problem.f_ref)


def problem_of(qp: QP, sparse: bool) -> Any:
    """As qpsolvers takes it."""
    from scipy.sparse import csc_matrix

    def matrix(dense: Any) -> Any:
        return csc_matrix(dense) if sparse and dense is not None else dense

    return qpsolvers.Problem(matrix(qp.P), qp.q, matrix(qp.G), qp.h, matrix(qp.A), qp.b, qp.lb, qp.ub)


def is_solved(problem: Problem, solution: Any, eps: float) -> bool:
    """Primal, dual and gap, from x and the multipliers alone, and the reference's objective."""
    qp, f_ref = problem
    if not solution.found:
        return False
    x = solution.x
    violations = [qp.G @ x - qp.h]
    dual = qp.P @ x + qp.q + qp.G.T @ solution.z
    gap = x @ qp.P @ x + qp.q @ x + qp.h @ solution.z
    if qp.A is not None:
        violations.append(np.abs(qp.A @ x - qp.b))
        dual = dual + qp.A.T @ solution.y
        gap += qp.b @ solution.y
    if qp.lb is not None:
        violations += [qp.lb - x, x - qp.ub]
        dual = dual + solution.z_box
        pulls = solution.z_box != 0
        gap += solution.z_box[pulls] @ np.where(solution.z_box > 0, qp.ub, qp.lb)[pulls]
    primal = max(float(np.max(violation, initial=0.0)) for violation in violations)
    objective = 0.5 * x @ qp.P @ x + qp.q @ x
    near = abs(objective - f_ref) <= 10 * eps * (1 + abs(f_ref))
    return bool(primal <= eps and np.max(np.abs(dual)) <= eps and abs(gap) <= eps and near)


def time_us(
    calls: dict[Any, list[Callable[[], Any]]],
    rounds: int,
    repeats: int,
    clocks: dict[Any, Callable[[Any], float]] | None = None,
) -> dict[Any, list[float]]:
    """Medians over the rounds of each call's time, with its own list of problems; the lists take turns.

    A list is gone through in order, ``repeats`` times a round, so that nobody solves a problem that it has
    just solved. ``clocks`` has those whose result says how many seconds it took.
    """
    clocks = clocks or {}
    times = {key: [[0.0] * 0 for _ in group] for key, group in calls.items()}
    keys = list(calls)
    gc.disable()
    for number in range(rounds):
        turn = number % len(keys)
        for key in keys[turn:] + keys[:turn]:
            for _ in range(repeats):
                for call, seen in zip(calls[key], times[key], strict=True):
                    start = time.perf_counter()
                    found = call()
                    took_s = time.perf_counter() - start
                    seen.append((clocks[key](found) if key in clocks else took_s) * 1e6)
    gc.enable()
    return {key: [report.median(seen) for seen in group] for key, group in times.items()}


def attempt(contender: Contender, make: Callable[[], Callable[[], Any]]) -> Callable[[], Any] | None:
    """The call if it works; otherwise the failure is noted."""
    try:
        call = make()
        call()
    except Exception as exc:  # noqa: BLE001 - whatever a rival raises
        contender.failures.append(f"{type(exc).__name__}: {exc}"[:120])
        return None
    return call


def common(contender: Contender, qp: QP, eps: float) -> Callable[[], Any]:
    """The call that is the same for all."""
    problem, options = problem_of(qp, contender.sparse), contender.options(eps)
    return lambda: qpsolvers.solve_problem(problem, solver=contender.name, **options)


def calls_of(contender: Contender, problems: list[Problem], eps: float) -> dict[str, list[Callable[[], Any]]]:
    """Every way to call a contender, as far as it works on all problems of a family."""
    ways = {"common": lambda qp: common(contender, qp, eps), "own": lambda qp: contender.own(qp, eps)}
    if contender.warm is not None:
        try:
            ways["warm"] = contender.warm(problems[0].qp, eps)
        except Exception as exc:  # noqa: BLE001 - whatever a rival raises
            contender.failures.append(f"warm: {type(exc).__name__}: {exc}"[:120])
    found = {}
    for way, make in ways.items():
        calls = [attempt(contender, lambda make=make, qp=problem.qp: make(qp)) for problem in problems]
        if None not in calls:
            found[way] = calls
    return found


def measure(problems: list[Problem], field: list[Contender], eps: float, rounds: int) -> list[dict[str, Any]]:
    """One family at one tolerance: a row for each contender."""
    calls = {
        (contender.name, way): group
        for contender in field
        for way, group in calls_of(contender, problems, eps).items()
    }
    clocks = {}
    for contender in field:
        if contender.inside is not None and (contender.name, "own") in calls:
            calls[contender.name, "inside"] = calls[contender.name, "own"]
            clocks[contender.name, "inside"] = contender.inside
    large = len(problems[0].qp.q) > 100
    times = time_us(calls, max(3, rounds // 3) if large else rounds, 1 if large else 3, clocks)
    rows = []
    for contender in field:
        solved = sum(
            is_solved(problem, call(), eps)
            for problem, call in zip(problems, calls.get((contender.name, "common"), []), strict=False)
        )
        row: dict[str, Any] = {"solver": contender.name, "solved": f"{solved}/{len(problems)}"}
        for way in ("common", "own", "inside", "warm"):
            seen = times.get((contender.name, way))
            row[way] = None if seen is None else report.median(seen)
            row[way + "_p95"] = None if seen is None else report.percentile(seen, 0.95)
        rows.append(row)
    return rows


def batches(problems: list[Problem], rows: list[dict[str, Any]], eps: float) -> dict[str, Any]:
    """256 problems with the same matrices, ours in one call on one core, beside the rivals one by one."""
    chosen = [problems[i % len(problems)].qp for i in range(BATCH)]
    solver = QpSolver(chosen[0].P, chosen[0].rows()[0])
    q = np.stack([qp.q for qp in chosen])
    lower, upper = (np.stack([qp.rows()[side] for qp in chosen]) for side in (1, 2))
    box = [None if chosen[0].lb is None else np.stack([qp[side] for qp in chosen]) for side in (6, 7)]
    pool = ThreadPool(1)
    call = {"ours": [lambda: solver.solve_many(q, lower, upper, *box, eps=eps, pool=pool)]}
    per_problem = time_us(call, 31, 1)["ours"][0] / BATCH
    rivals = [
        (row[way], f"{row['solver']} ({way})", way)
        for row in rows[1:]
        for way in ("common", "own", "warm")
        if row[way] is not None and row["solved"] == rows[0]["solved"]
    ]
    best = min(rivals)
    best_common = min(rival for rival in rivals if rival[2] == "common")
    return {
        "us_per_problem": per_problem,
        "per_core_second": 1e6 / per_problem,
        "best_rival": best[1],
        "times": best[0] / per_problem,
        "best_common": best_common[1],
        "times_common": best_common[0] / per_problem,
    }


def main() -> None:
    """Measure and print."""
    command = report.parser(__doc__ or "")
    command.add_argument("--data", type=Path, required=True, help="folder of mpc_qp.npz")
    command.add_argument("--rounds", type=int, default=21)
    args = command.parse_args()
    warnings.simplefilter("ignore")
    qpsolvers_adapter.register()
    results = []
    for family, problems in load(args.data / "mpc_qp.npz").items():
        for eps in (1e-3, 1e-6):
            field = contenders()
            rows = measure(problems, field, eps, args.rounds)
            print(
                f"\n{family}: {len(problems)} problems, n={len(problems[0].qp.q)}, to {eps:g}; microseconds"
            )
            report.table(list(rows[0]), [list(row.values()) for row in rows])
            for contender in field:
                if contender.failures:
                    print(f"{contender.name} failed {len(contender.failures)} times: {contender.failures[0]}")
            batch = batches(problems, rows, eps)
            print("batch of 256:")
            report.table(list(batch), [list(batch.values())])
            results.append({"family": family, "eps": eps, "rows": rows, "batch": batch})
    report.write(args.json, "control_qp", results)


if __name__ == "__main__":
    main()
