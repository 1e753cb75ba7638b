"""Plan through cluttered worlds and around race tracks, stop at several deadlines, show what each is worth.

    python demos/control_trajectory_irp.py --data FOLDER   (FOLDER holds barn.npz and racetracks.npz)

Without data it makes a world of its own. The figure needs matplotlib: `pip install --group demo`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from sage_edge import HRM, Budget, SageError, Settings, open_hrm
from sage_edge.control import Limits, PlanProblem, World

ROBOT_RADIUS_M = 0.215
LIMITS = {"speed_m_s": 2.0, "acceleration_m_s2": 2.0, "curvature_1_m": 4.0}
DEADLINES_MS = (10.0, 15.0, 20.0, 50.0, 1000.0)
DRAWN_STEPS = (0, 1, 2, 4)


def main() -> int:
    """Returns the exit code: 1 when a record of the telemetry is not valid."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with barn.npz and racetracks.npz")
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--tracks", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("var/demo-control"))
    options = parser.parse_args()
    worlds, tracks = load(options.data, options.worlds, options.tracks)
    telemetry = options.out / "telemetry"
    hrm = open_hrm(Settings(plugins=("control",), telemetry_dir=str(telemetry), threads=1, max_steps_cap=64))
    try:
        show_worlds(hrm, worlds)
        show_tracks(hrm, tracks)
    finally:
        hrm.close()
    draw(worlds, options.out)
    journal = telemetry / "telemetry.jsonl"
    print(f"\ntelemetry: {journal}", flush=True)
    return subprocess.call([sys.executable, "-m", "sage_edge", "telemetry", "validate", str(journal)])


def load(data: Path | None, worlds: int, tracks: int) -> tuple[list[Any], list[Any]]:
    """Documents of worlds with the length of a reference way, and of tracks with the cost of a reference."""
    if data is None:
        print("no --data: a world of our own, held against the straight line")
        return [own_world(seed) for seed in range(worlds)], []
    barn, races = np.load(data / "barn.npz"), np.load(data / "racetracks.npz")
    names = sorted({key.split("/")[0] for key in barn.files}, key=int)[:worlds]
    circuits = sorted({key.split("/")[0] for key in races.files})[:tracks]
    return [barn_world(barn, name) for name in names], [circuit(races, name) for name in circuits]


def barn_world(archive: Any, name: str) -> tuple[str, dict[str, Any], float]:
    """One BARN world, and how long its upstream path is."""
    start, goal = (-2.25, 3.0), (-2.25, 13.0)
    cells = archive[f"{name}/ref_path_gridcells"]
    way = np.column_stack([0.15 * cells[:, 0] - 4.575, 0.15 * cells[:, 1] + 5.075])
    discs = [[float(x), float(y), 0.075] for x, y in archive[f"{name}/obstacles"]]
    return f"barn {name}", plan_document(start, goal, discs), length_m(np.vstack([start, way, goal]))


def own_world(seed: int) -> tuple[str, dict[str, Any], float]:
    """Discs anywhere between start and goal."""
    rng = np.random.default_rng(seed)
    places = np.column_stack([rng.uniform(-3, 3, 45), rng.uniform(1, 9, 45), rng.uniform(0.05, 0.3, 45)])
    return f"own {seed}", plan_document((0.0, 0.0), (0.0, 10.0), places.tolist()), 10.0


def plan_document(start: Any, goal: Any, discs: list[list[float]]) -> dict[str, Any]:
    """What POST /v1/refine/control would be sent."""
    return {
        "kind": "plan",
        "start": list(start),
        "goal": list(goal),
        "obstacles": discs,
        "robot_radius_m": ROBOT_RADIUS_M,
        "limits": LIMITS,
    }


def circuit(archive: Any, name: str) -> tuple[str, dict[str, Any], float]:
    """One race track, and the curvature cost of its reference line."""
    track, reference = archive[f"{name}/track"], archive[f"{name}/raceline"]
    document = {
        "kind": "track",
        "centre": track[:, :2].tolist(),
        "right_m": track[:, 2].tolist(),
        "left_m": track[:, 3].tolist(),
    }
    return name, document, curvature_cost(reference)


def refine(hrm: HRM, document: dict[str, Any], deadline_ms: float) -> tuple[Any, float] | None:
    """A result with its wall time, set-up included; None without a way, or time for even a first line."""
    start_ns = time.monotonic_ns()
    try:
        problem = hrm.prepare("control", document)
        ticket = hrm.submit("control", problem, Budget(deadline_ms=deadline_ms), start_ns=start_ns)
        result = ticket.future.result()
    except SageError:
        return None
    return result, (time.monotonic_ns() - start_ns) / 1e6


def show_worlds(hrm: HRM, worlds: list[Any]) -> None:
    """One row for each deadline."""
    print(f"\n{len(worlds)} worlds, a robot of radius {ROBOT_RADIUS_M} m, {LIMITS}")
    print("deadline   answered   success   length/ref   violation   steps      ms   E/E_0")
    for deadline_ms in DEADLINES_MS:
        rows = [(refine(hrm, document, deadline_ms), reference) for _, document, reference in worlds]
        done = [(*found, reference) for found, reference in rows if found]
        feasible = [entry for entry in done if entry[0].answer.details["feasible"]]
        if not feasible:
            print(f"{deadline_ms:6.0f} ms   {len(done) / len(worlds):8.0%}        0%")
            continue
        print(
            f"{deadline_ms:6.0f} ms   {len(done) / len(worlds):8.0%}   {len(feasible) / len(worlds):7.0%}   "
            f"{np.mean([r.answer.details['length_m'] / reference for r, _, reference in feasible]):10.3f}   "
            f"{max(r.answer.details['violation'] for r, _, _ in done):9.3f}   "
            f"{np.mean([r.run.step_idx for r, _, _ in done]):5.1f}   "
            f"{np.median([ms for _, ms, _ in done]):5.1f}   "
            f"{np.mean([r.run.best_E / r.run.E0 for r, _, _ in done]):5.3f}"
        )


def show_tracks(hrm: HRM, tracks: list[Any]) -> None:
    """One row for each track."""
    for name, document, reference in tracks:
        found = refine(hrm, document, 60_000.0)
        if found:
            result, ms = found
            details = result.answer.details
            print(
                f"\ntrack {name}: curvature cost {details['bending_1_m'] / reference:.4f} of the "
                f"reference's, lap {details['duration_s']:.1f} s, {result.run.step_idx} steps, {ms:.0f} ms, "
                f"feasible {details['feasible']}"
            )


def draw(worlds: list[Any], out: Path) -> None:
    """Some lines improving over steps, as a picture."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        print("\nno figure: matplotlib is not installed (pip install --group demo)")
        return
    figure = Figure(figsize=(12, 8), layout="tight")
    shown = worlds[:4]
    for axes, (name, document, _) in zip(np.ravel(figure.subplots(1, len(shown))), shown, strict=True):
        try:
            draw_world(axes, document)
        except SageError as exc:
            axes.text(0, 0, str(exc))
        axes.set(title=name, aspect="equal")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "trajectories.png", dpi=110)
    print(f"\nfigure: {out / 'trajectories.png'}")


def draw_world(axes: Any, document: dict[str, Any]) -> None:
    """One world with the line after some steps, the later the darker."""
    from matplotlib.patches import Circle

    for x, y, radius in document["obstacles"]:
        axes.add_patch(Circle((x, y), radius, color="0.6"))
    world = World(
        document["start"], document["goal"], document["obstacles"], ROBOT_RADIUS_M, Limits(**LIMITS)
    )
    problem = PlanProblem(world)
    iterate = problem.first()
    for step in range(max(DRAWN_STEPS) + 1):
        if step in DRAWN_STEPS:
            shade = 1 - DRAWN_STEPS.index(step) / len(DRAWN_STEPS)
            colour, label = (1 - shade, 0.2, shade), f"step {step}, E {iterate.E:.3f}"
            axes.plot(*iterate.x.reshape(-1, 2).T, color=colour, label=label)
        iterate = problem.step(iterate)
    axes.legend(fontsize=7, loc="lower right")


def length_m(points: Any) -> float:
    """Of a polyline."""
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def curvature_cost(points: Any) -> float:
    """Squared curvature times length, summed over a closed polyline."""
    before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
    a, b, c = points - before, after - points, after - before
    la, lb, lc = (np.linalg.norm(side, axis=1) for side in (a, b, c))
    kappa = 2 * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / (la * lb * lc)
    return float(np.sum(kappa**2 * (la + lb) / 2))


if __name__ == "__main__":
    raise SystemExit(main())
