"""Is what ends as done the true optimum, whatever the units? Random QPs and MPCs, against Clarabel.

Needs `pip install --group bench-control`. QPs: strictly convex, semidefinite and linear, with equalities,
missing limits and rows that follow from others. MPCs: stable and unstable plants, horizons up to 40. Cost,
variables and rows are each scaled by a random power of ten. An answer is right when its cost is within 1e-3
of the optimum that Clarabel finds to 1e-9, relative to that, and it says that its limits are kept. What has
no solution must end with its certificate.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import clarabel
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks import report
from sage_edge import refine
from sage_edge.plugins.control import ControlPlugin

Floats = NDArray[np.float64]
KINDS = {"strictly convex": 1.0, "semidefinite": 0.5, "linear": 0.0}
RADII, HORIZONS = (0.5, 0.95, 1.05, 1.2, 1.5), (5, 20, 40)
#: Distance from the optimum that counts as none, relative to it.
TOLERANCE = 1e-3


class Case(NamedTuple):
    """A problem in random units; its optimum, None where it has none, and an answer's cost, in its own."""

    document: dict[str, Any]
    optimum: float | None
    cost: Callable[[Floats], float]


class GaveUpError(Exception):
    """Clarabel does not know."""


def least_cost(P: Floats, q: Floats, rows: Floats, low: Floats, high: Floats) -> float | None:
    """The optimum by Clarabel; None where there is none."""
    equal = low == high
    over, under = np.isfinite(high) & ~equal, np.isfinite(low) & ~equal
    stacked = np.vstack([rows[equal], rows[over], -rows[under]])
    right = np.concatenate([high[equal], high[over], -low[under]])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-9
    cones = [clarabel.ZeroConeT(int(equal.sum())), clarabel.NonnegativeConeT(int(over.sum() + under.sum()))]
    found = clarabel.DefaultSolver(
        sparse.triu(sparse.csc_matrix(P), format="csc"), q, sparse.csc_matrix(stacked), right, cones, settings
    ).solve()
    status = str(found.status)
    if status == "PrimalInfeasible":
        return None
    if status != "Solved":
        raise GaveUpError(status)
    return _cost(P, q, np.array(found.x))


def some_qp(random: np.random.Generator, rank: float) -> Case:
    """A QP with a solution."""
    n, m = int(random.integers(2, 20)), int(random.integers(1, 20))
    G = random.standard_normal((int(rank * n), n))
    inside, A = random.standard_normal(n), random.standard_normal((m, n))
    if m > 4:
        A[-1], A[-2] = A[0], A[1] + A[2]
    low, high = A @ inside - random.uniform(0.05, 1, m), A @ inside + random.uniform(0.05, 1, m)
    equal = np.arange(m) % 7 == 3
    low[equal] = high[equal] = (A @ inside)[equal]
    low[(random.random(m) < 0.3) & ~equal] = -np.inf
    lb, ub = inside - random.uniform(0.1, 2, n), inside + random.uniform(0.1, 2, n)
    P, q = G.T @ G, random.standard_normal(n) * 10 ** random.uniform(-1, 1)
    known = least_cost(P, q, np.vstack([A, np.eye(n)]), np.concatenate([low, lb]), np.concatenate([high, ub]))
    unit, of_row, price = (
        10 ** random.uniform(-2, 2, n),
        10 ** random.uniform(-2, 2, m),
        10 ** random.uniform(-8, 8),
    )
    document = {"kind": "qp", "P": price * unit[:, None] * P * unit, "q": price * unit * q}
    document |= {"A": of_row[:, None] * A * unit, "l": of_row * low, "u": of_row * high}
    document |= {"lb": lb / unit, "ub": ub / unit}
    return Case(document, known, lambda x: _cost(P, q, unit * x))


def _cost(P: Floats, q: Floats, x: Floats) -> float:
    return float(0.5 * x @ P @ x + q @ x)


def some_mpc(random: np.random.Generator, radius: float, N: int) -> Case:
    """An MPC whose limits touch what the best feedback would do; some cannot be kept."""
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
    x_max = np.where(random.random(nx) < 0.3, np.abs(states).max(axis=0) * 1.05, np.inf)
    known = _least_of_mpc(A, B, Q, R, N, x0, x_max, u_max)
    of_x, of_u = 10 ** random.uniform(-2, 2, nx), 10 ** random.uniform(-2, 2, nu)
    price = 10 ** random.uniform(-8, 8)
    document = {"kind": "mpc", "A": A * of_x / of_x[:, None], "B": B * of_u / of_x[:, None], "N": N}
    document |= {"Q": price * of_x**2 * np.diag(Q), "R": price * of_u**2 * np.diag(R), "x0": x0 / of_x}
    document |= {"x_min": -x_max / of_x, "x_max": x_max / of_x, "u_min": -u_max / of_u, "u_max": u_max / of_u}

    def cost(u: Floats) -> float:
        x, total = x0, 0.0
        for step in u * of_u:
            x = A @ x + B @ step
            total += x @ Q @ x + step @ R @ step
        return float(total)

    return Case(document, known, cost)


def _least_of_mpc(
    A: Floats, B: Floats, Q: Floats, R: Floats, N: int, x0: Floats, x_max: Floats, u_max: Floats
) -> float | None:
    """With the states among the variables, as no condensed form has them."""
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
    limits = np.concatenate([right, -most]), np.concatenate([right, most])
    return least_cost(P, np.zeros(N * w), np.vstack([rows, np.eye(N * w)]), *limits)


def judge(plugin: ControlPlugin, case: Case) -> str:
    """What became of one problem."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ended = refine(plugin, plugin.prepare(case.document))
    answer = plugin.decode(ended.best)
    if case.optimum is None:
        return (
            "certified" if answer.details["certificate"] is not None else f"uncertified: {ended.halt_reason}"
        )
    if ended.halt_reason != "feasible":
        return f"not done: {ended.halt_reason}"
    off = abs(case.cost(np.asarray(answer.array)) - case.optimum)
    return "right" if off <= TOLERANCE * abs(case.optimum) and answer.details["feasible"] else "wrong"


def main() -> None:
    """Try them all, print, write."""
    options = report.parser(__doc__)
    options.add_argument("--problems", type=int, default=10_000)
    options.add_argument("--first", type=int, default=0, help="seed of the first problem")
    chosen = options.parse_args()
    plugin, results = ControlPlugin(), {name: Counter[str]() for name in (*KINDS, "mpc")}
    seeds: dict[str, list[int]] = {}
    for seed in range(chosen.first, chosen.first + chosen.problems):
        random = np.random.default_rng(seed)
        name = list(results)[seed % 4]
        try:
            if name == "mpc":
                case = some_mpc(random, RADII[seed // 4 % 5], HORIZONS[seed // 20 % 3])
            else:
                case = some_qp(random, KINDS[name])
            outcome = judge(plugin, case)
        except GaveUpError:
            outcome = "clarabel gave up"
        results[name][outcome] += 1
        if outcome not in ("right", "certified", "clarabel gave up"):
            seeds.setdefault(f"{name}, {outcome}", []).append(seed)
    kinds = sorted({outcome for counted in results.values() for outcome in counted})
    report.table(
        ["", *kinds], [[name, *(counted[kind] for kind in kinds)] for name, counted in results.items()]
    )
    print(seeds)
    report.write(chosen.json, "control_optimum", {"outcomes": results, "seeds": seeds})


if __name__ == "__main__":
    main()
