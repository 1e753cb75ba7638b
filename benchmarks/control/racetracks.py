"""Minimum-curvature lines around race tracks, beside the reference lines that come with the tracks.

The cost is the sum of squared curvature times length, by the same oracle for both lines. The reference keeps
0.75 m from the edges at most of its length and less at some corners; the second table gives ours the least
distance that the reference itself keeps.

    python -m benchmarks.control.racetracks --data FOLDER    (FOLDER holds racetracks.npz)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from sage_edge.control import Track, plan
from tests.oracles import plane

MARGIN_M = 0.75


def measure(track: np.ndarray, reference: np.ndarray, margin_m: float) -> dict[str, Any]:
    """One track: both costs, by the oracle, and how close to the edges both lines come."""
    centre, right_m, left_m = track[:, :2], track[:, 2], track[:, 3]
    made = plan(Track(centre, right_m, left_m, margin_m=margin_m), max_steps=60)
    line = made.motion.position
    return {
        "feasible": made.feasible,
        "margin_m": margin_m,
        "ratio": plane.curvature_cost_1_m(line) / plane.curvature_cost_1_m(reference),
        "edge_m": plane.least_edge_distance_m(line, centre, right_m, left_m),
        "reference_edge_m": plane.least_edge_distance_m(reference, centre, right_m, left_m),
        "steps": len(made.energies) - 1,
        "halt_reason": made.halt_reason,
        "time_ms": made.time_ms,
        "lap_s": float(made.motion.time_s[-1]),
    }


def main() -> None:
    """Measure, print, write."""
    options = report.parser(__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--tracks", nargs="*", help="only these")
    chosen = options.parse_args()
    archive = np.load(chosen.data / "racetracks.npz")
    names = chosen.tracks or sorted({key.split("/")[0] for key in archive.files})
    results = {}
    for name in names:
        track, reference = archive[f"{name}/track"], archive[f"{name}/raceline"]
        nominal = measure(track, reference, MARGIN_M)
        own_m = min(MARGIN_M, max(0.0, nominal["reference_edge_m"]))
        results[name] = {"nominal": nominal, "reference's own": measure(track, reference, own_m)}
    for rule in ("nominal", "reference's own"):
        rows = {name: found[rule] for name, found in results.items()}
        print(f"\nmargin: {rule}")
        report.table(
            [
                "track",
                "margin m",
                "cost / reference",
                "edge m",
                "its edge m",
                "rounds",
                "ms",
                "lap s",
                "feasible",
            ],
            [
                [
                    name,
                    row["margin_m"],
                    f"{row['ratio']:.4f}",
                    row["edge_m"],
                    row["reference_edge_m"],
                    row["steps"],
                    row["time_ms"],
                    row["lap_s"],
                    row["feasible"],
                ]
                for name, row in rows.items()
            ],
        )
        ratios = [row["ratio"] for row in rows.values()]
        within = np.mean([ratio <= 1.02 for ratio in ratios])
        print(f"median {np.median(ratios):.4f}, largest {max(ratios):.4f}, within 2 %: {within:.0%}")
    report.write(chosen.json, "racetracks", results)


if __name__ == "__main__":
    main()
