"""MPC in closed loop at 500 Hz: limits kept under every halt reason, and what stopping early saves.

A quadrotor (12 states, 4 inputs, N = 20) and a cart-pole (N = 20) follow changing targets for 60 s of
simulated time. The controller's limits are tighter than the plant's by a margin; a violation is a state or
input outside of the plant's own. "saved" compares iterations with the run of a fixed number of steps.

    python -m benchmarks.control.closed_loop
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.control.plants import HORIZON, LOOP_S, Plant, cart_pole, quadrotor
from sage_edge.control import MPC, MPC_HALTING

#: By how much the controller's limits on states are tighter than the plant's, as a share of them.
MARGIN = 0.02
#: Steps of the run that every other one is compared with: 100 iterations.
FIXED_STEPS = 20
_FIXED = MPC_HALTING.replace(halt_when_feasible=False, eps=0.0)
POLICIES = {
    f"max_steps {FIXED_STEPS}": (_FIXED.replace(max_steps=FIXED_STEPS), None),
    "feasible": (MPC_HALTING, None),
    "slope<eps": (MPC_HALTING.replace(halt_when_feasible=False, K=2, eps=0.3), None),
    "confidence": (_FIXED.replace(max_steps=100, target_E_norm=-3.0), None),
    "max_steps 4": (_FIXED.replace(max_steps=4), None),
    "max_steps 2": (_FIXED.replace(max_steps=2), None),
    "timeout": (_FIXED.replace(max_steps=100), 0.5),
    "budget": (_FIXED.replace(max_steps=100, budget_us=400.0), None),
}


def controller(plant: Plant) -> MPC:
    """The plant's controller."""
    A, B = plant.sampled(plant.stage_s)
    x_max = plant.x_max * (1 - MARGIN)
    return MPC(
        A,
        B,
        plant.q,
        plant.r,
        HORIZON,
        QN=plant.terminal(A, B),
        x_min=-x_max,
        x_max=x_max,
        u_min=-plant.u_max,
        u_max=plant.u_max,
    )


def simulate(
    plant: Plant, mpc: MPC, policy: Any, deadline_ms: float | None, seconds: float
) -> dict[str, Any]:
    """One run: its cost, its largest violation, its iterations, how its solves ended and what they took."""
    A, B = plant.sampled(LOOP_S)
    state, warm = np.zeros(len(A)), None
    cost = worst = 0.0
    at_limit = 0
    iterations, times_ms, reasons = [], [], Counter[str]()
    for tick in range(int(seconds / LOOP_S)):
        target = plant.targets[int(tick * LOOP_S / plant.hold_s) % len(plant.targets)]
        began_s = time.perf_counter()
        found = mpc.solve(state, target, warm=warm, shift=False, policy=policy, deadline_ms=deadline_ms)
        times_ms.append((time.perf_counter() - began_s) * 1e3)
        warm, u = found.warm, found.u[0]
        iterations.append(found.iterations)
        reasons[found.halt_reason] += 1
        cost += float((state - target) ** 2 @ plant.q + u**2 @ plant.r)
        state = A @ state + B @ u
        at_limit += bool(
            np.any(np.abs(state) >= 0.95 * plant.x_max) or np.any(np.abs(u) >= 0.95 * plant.u_max)
        )
        outside = max(np.max(np.abs(state) - plant.x_max), np.max(np.abs(u) - plant.u_max))
        worst = max(worst, float(outside))
    return {
        "cost": cost,
        "worst_violation": worst,
        "at_limit": at_limit / len(times_ms),
        "iterations": float(np.mean(iterations)),
        "reasons": dict(reasons),
        "p50_ms": report.median(times_ms),
        "p99_ms": report.percentile(times_ms, 0.99),
    }


def saved(full: float, iterations: float) -> str:
    """How many times more a full run iterates than this one, which may have had no time for any."""
    return f"{full / iterations:.2f}x" if iterations else "all"


def main() -> None:
    """Measure, print, write."""
    options = report.parser(__doc__)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--policies", nargs="*", default=list(POLICIES))
    options.add_argument("--plants", nargs="*", default=["quadrotor", "cart-pole"])
    chosen = options.parse_args()
    results: dict[str, Any] = {}
    for plant in (quadrotor(), cart_pole()):
        if plant.name not in chosen.plants:
            continue
        mpc = controller(plant)
        rows = {name: simulate(plant, mpc, *POLICIES[name], chosen.seconds) for name in chosen.policies}
        results[plant.name] = rows
        full = rows.get(f"max_steps {FIXED_STEPS}", next(iter(rows.values())))
        print(f"\n{plant.name}: {chosen.seconds:g} s at {1 / LOOP_S:g} Hz")
        report.table(
            [
                "policy",
                "violation",
                "at a limit",
                "iterations",
                "saved",
                "cost",
                "p50 ms",
                "p99 ms",
                "ended with",
            ],
            [
                [
                    name,
                    f"{row['worst_violation']:.2e}",
                    f"{row['at_limit']:.1%}",
                    row["iterations"],
                    saved(full["iterations"], row["iterations"]),
                    f"{row['cost'] / full['cost'] - 1:+.3%}",
                    row["p50_ms"],
                    row["p99_ms"],
                    ", ".join(f"{reason} {count}" for reason, count in row["reasons"].items()),
                ]
                for name, row in rows.items()
            ],
        )
    report.write(chosen.json, "closed_loop", results)


if __name__ == "__main__":
    main()
