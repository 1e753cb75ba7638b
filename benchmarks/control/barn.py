"""Plans through the BARN worlds at a deadline, on one core, every success checked by an independent oracle.

A world counts as a success when the plan is there within the deadline (wall time from the world's arrays to
the motion) and the oracle finds no collision, the goal reached and every limit kept. Run with
OPENBLAS_NUM_THREADS=1 and `taskset -c 0`:

    python -m benchmarks.control.barn --data FOLDER    (FOLDER holds barn.npz)
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from sage_edge.control import Limits, World, plan
from tests.oracles import plane

START, GOAL = (-2.25, 3.0), (-2.25, 13.0)
OBSTACLE_RADIUS_M = 0.075
#: Half the width of the robot for which the worlds were made.
ROBOT_RADIUS_M = 0.215
LIMITS = Limits(speed_m_s=2.0, acceleration_m_s2=2.0, curvature_1_m=4.0)
#: How far a limit may be exceeded and still count as kept: a thousandth.
SLACK = 1e-3


def worlds(data: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Obstacles [m, 3] and the upstream path [k, 2] of each world, metres."""
    archive = np.load(data / "barn.npz")
    names = sorted({key.split("/")[0] for key in archive.files}, key=int)
    found = {}
    for name in names:
        centres = archive[f"{name}/obstacles"].astype(float)
        cells = archive[f"{name}/ref_path_gridcells"]
        path = np.column_stack([0.15 * cells[:, 0] - 4.575, 0.15 * cells[:, 1] + 5.075])
        found[name] = (np.column_stack([centres, np.full(len(centres), OBSTACLE_RADIUS_M)]), path)
    return found


def measure(obstacles: np.ndarray, reference: np.ndarray, deadline_ms: float) -> dict[str, Any]:
    """One world: what was planned, what the oracle says of it, and how long it took."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    made = plan(World(START, GOAL, obstacles, ROBOT_RADIUS_M, LIMITS), deadline_ms=deadline_ms)
    cpu_ms, wall_ms = (time.process_time() - began_cpu_s) * 1e3, (time.perf_counter() - began_s) * 1e3
    clearance_m = plane.least_clearance_m(made.motion.position, obstacles, ROBOT_RADIUS_M)
    within = {
        "speed": np.linalg.norm(made.motion.velocity, axis=1).max() <= LIMITS.speed_m_s * (1 + SLACK),
        "acceleration": np.linalg.norm(made.motion.acceleration, axis=1).max()
        <= LIMITS.acceleration_m_s2 * (1 + SLACK),
        "curvature": plane.largest_curvature_1_m(made.motion.position) <= LIMITS.curvature_1_m * (1 + SLACK),
        "dynamics": plane.played(made.motion) <= 1e-9,
        "goal": bool(np.linalg.norm(made.motion.position[-1] - GOAL) <= 1.0),
        "clear": clearance_m >= -1e-6,
    }
    right = all(within.values())
    whole = np.vstack([START, reference, GOAL])
    return {
        "feasible": made.feasible,
        "right": bool(right),
        "in_time": wall_ms <= deadline_ms,
        "in_cpu_time": cpu_ms <= deadline_ms,
        "claimed_but_wrong": made.feasible and not right,
        "collision_claimed": made.feasible and not within["clear"],
        "steps": len(made.energies) - 1,
        "halt_reason": made.halt_reason,
        "wall_ms": wall_ms,
        "cpu_ms": cpu_ms,
        "length_m": float(np.linalg.norm(np.diff(made.motion.position, axis=0), axis=1).sum()),
        "reference_m": float(np.linalg.norm(np.diff(whole, axis=0), axis=1).sum()),
        "duration_s": float(made.motion.time_s[-1]),
        "E": made.energies,
    }


def main() -> None:
    """Measure, print, write."""
    options = report.parser(__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--deadline-ms", type=float, nargs="+", default=[50.0])
    options.add_argument("--worlds", type=int, default=None, help="only so many")
    chosen = options.parse_args()
    found = dict(list(worlds(chosen.data).items())[: chosen.worlds])
    for obstacles, path in list(found.values())[:5]:
        measure(obstacles, path, 1000.0)
    results = {d: {n: measure(*world, d) for n, world in found.items()} for d in chosen.deadline_ms}
    report.table(
        [
            "deadline ms",
            "success",
            "feasible",
            "collisions claimed",
            "wall ms p50",
            "p95",
            "max",
            "cpu ms p50",
            "rounds p50",
            "length / upstream",
            "duration s",
        ],
        [[deadline, *_summary(list(rows.values()))] for deadline, rows in results.items()],
    )
    report.write(chosen.json, "barn", results)


def _summary(rows: list[dict[str, Any]]) -> list[object]:
    wall = [row["wall_ms"] for row in rows]
    return [
        f"{np.mean([row['right'] and row['in_time'] for row in rows]):.1%}",
        f"{np.mean([row['feasible'] for row in rows]):.1%}",
        sum(row["collision_claimed"] for row in rows),
        report.median(wall),
        report.percentile(wall, 0.95),
        max(wall),
        report.median([row["cpu_ms"] for row in rows]),
        report.median([row["steps"] for row in rows]),
        float(np.mean([row["length_m"] / row["reference_m"] for row in rows])),
        float(np.mean([row["duration_s"] for row in rows])),
    ]


if __name__ == "__main__":
    main()
