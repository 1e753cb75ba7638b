"""Half of the energy that full refinement needs: how well does each policy share it?

First every labelled frame is refined to its last step by the vision plugin, and every world planned to its
last round by the control plugin; energies, measured quality and the time of a step are kept. Then scenes of
frames and worlds are replayed through the real orchestrator in simulated time, each with half of the energy
that its members would need, under each policy. Profiles are learned on scenes of the first half of the
inputs, what is reported comes from the second. Two figures for each policy: H left at the end (the sum of
E_norm, what the policies steer by), and 1 - mIoU of the vision members against their labels. The oracle knows
every course beforehand and picks the best split of the same energy by dynamic programming. Excess is counted
over full refinement.

    python -m benchmarks.orchestrator.allocation --data FOLDER     (holds nuclei_dsb2018/ and control/)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import report
from benchmarks.control.barn import GOAL, LIMITS, ROBOT_RADIUS_M, START, worlds
from benchmarks.orchestrator.simulation import Costs, ReplayPlugin, SimulatedClock, open_simulated
from sage_edge import Budget, Entry, HaltPolicy, Settings, open_plugin
from sage_edge.control import PlanProblem, World
from sage_edge.errors import InfeasibleError
from sage_edge.evaluation import find_labelled
from sage_edge.quality import confusion, mean_iou

STEPS = 8
POLICIES = ("equal", "proportional", "trust", "greedy")
#: A scene's budget is divided into so many parts for the oracle.
_PARTS = 1000


class Course(NamedTuple):
    """One input refined to the end.

    Attributes:
        plugin: Whose.
        E_norm: The best so far at each state, STEPS + 1 numbers.
        risk: 1 - mIoU of that state; None where there is no label.
    """

    plugin: str
    E_norm: list[float]
    risk: list[float] | None


class Traces(NamedTuple):
    """What was refined, and what a first state and a step cost in milliseconds, by plugin."""

    courses: list[Course]
    costs_ms: dict[str, tuple[float, float]]


def trace(
    plugin: Any, inputs: Sequence[Any], qualities: Sequence[Callable[[Any], float] | None]
) -> tuple[list[Course], tuple[float, float]]:
    """Refine every input for STEPS steps, alone; median milliseconds of a first state and of a step."""
    courses, start_ms, step_ms = [], [], []
    for prepared, quality in zip(inputs, qualities, strict=True):
        began_s = time.perf_counter()
        states = [plugin.init_state(prepared)]
        start_ms.append((time.perf_counter() - began_s) * 1e3)
        for _ in range(STEPS):
            began_s = time.perf_counter()
            states.append(plugin.project(plugin.step(states[-1], plugin.noise_schedule)))
            step_ms.append((time.perf_counter() - began_s) * 1e3)
        energies = [plugin.energy(state) / plugin.halting.E_scale for state in states]
        best = [min(range(k + 1), key=energies.__getitem__) for k in range(STEPS + 1)]
        risk = [1 - quality(states[i]) for i in best] if quality else None
        courses.append(Course(plugin.name, [energies[i] for i in best], risk))
    return courses, (report.median(start_ms), report.median(step_ms))


def trace_all(data: Path, frames: int, plans: int) -> Traces:
    """Courses of both plugins, those of one kind together."""
    settings = Settings(threads=1)
    vision, control = open_plugin("vision", settings), open_plugin("control", settings)
    labelled = list(find_labelled(data / "nuclei_dsb2018", "val"))[:frames]
    prepared = [vision.prepare(frame.frame) for frame in labelled]

    def quality_of(frame: Any) -> Callable[[Any], float]:
        return lambda state: mean_iou(
            confusion(frame.labels, vision.decode(state).array, len(vision.model.classes))
        )

    seen, vision_ms = trace(vision, prepared, [quality_of(frame) for frame in labelled])
    problems = []
    for obstacles, _ in list(worlds(data / "control").values())[: 2 * plans]:
        try:
            problems.append(PlanProblem(World(START, GOAL, obstacles, ROBOT_RADIUS_M, LIMITS)))
        except InfeasibleError:
            continue
    planned, control_ms = trace(control, problems[:plans], [None] * len(problems[:plans]))
    return Traces(seen + planned, {"vision": vision_ms, "control": control_ms})


def scenes(rng: np.random.Generator, courses: Sequence[Course], count: int) -> list[list[Course]]:
    """Scenes of four frames and two worlds, drawn at random."""
    kinds = [[c for c in courses if c.plugin == name] for name in ("vision", "control")]
    return [
        [
            kind[i]
            for kind, size in zip(kinds, (4, 2), strict=True)
            for i in rng.choice(len(kind), size, replace=False)
        ]
        for _ in range(count)
    ]


def budget_ms(scene: Sequence[Course], costs_ms: dict[str, tuple[float, float]], share: float) -> float:
    """That share of what full refinement of a scene costs."""
    return share * sum(costs_ms[c.plugin][0] + STEPS * costs_ms[c.plugin][1] for c in scene)


def replay(
    policy: str,
    learning: Sequence[list[Course]],
    judged: Sequence[list[Course]],
    traces: Traces,
    share: float,
) -> list[list[int]]:
    """The step at which each member of the judged scenes ended up, under a policy that has learned before."""
    clock = SimulatedClock()
    halting = HaltPolicy(K=1, eps=0.0, max_steps=STEPS)
    plugins = [
        ReplayPlugin(name, clock, Costs(0.0, start, 0.0, step), halting=halting, longest=STEPS)
        for name, (start, step) in traces.costs_ms.items()
    ]
    hrm = open_simulated(clock, plugins, slots=8, scene_eps=0.0, allocation=policy)
    prepare = {plugin.name: plugin.prepare for plugin in plugins}
    reached = []
    for scene in [*learning, *judged]:
        entries = [Entry(course.plugin, prepare[course.plugin](course.E_norm)) for course in scene]
        atp = budget_ms(scene, traces.costs_ms, share)  # at 1 W a millisecond is an ATP
        _, tickets = hrm.submit_scene(entries, Budget(atp=atp))
        while not all(ticket.future.done() for ticket in tickets):
            hrm.serve_once()
        reached.append([ticket.future.result().run.best_step for ticket in tickets])
    hrm.close()
    return reached[len(learning) :]


def oracle(
    scene: Sequence[Course], traces: Traces, share: float, loss: Callable[[Course, int], float]
) -> list[int]:
    """The steps of each member that lose least for that share of the energy: exact but for 1/1000 of it."""
    budget = budget_ms(scene, traces.costs_ms, share)
    budget -= sum(traces.costs_ms[c.plugin][0] for c in scene)
    part = budget / _PARTS
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
    for course in scene:
        price = traces.costs_ms[course.plugin][1] / part
        grown: dict[int, tuple[float, list[int]]] = {}
        for spent, (lost, steps) in best.items():
            for n in range(STEPS + 1):
                at = spent + int(np.ceil(n * price))
                now = lost + loss(course, n)
                if at <= _PARTS and (at not in grown or now < grown[at][0]):
                    grown[at] = (now, [*steps, n])
        best = grown
    return min(best.values(), key=lambda entry: entry[0])[1]


def H(course: Course, step: int) -> float:
    """What a member adds to H, at equal weights."""
    return course.E_norm[step]


def risk(course: Course, step: int) -> float:
    """What a member adds to the risk that labels show."""
    return course.risk[step] if course.risk else 0.0


def main() -> None:
    """Trace, replay, compare."""
    options = report.parser(__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--frames", type=int, default=66)
    options.add_argument("--plans", type=int, default=60)
    options.add_argument("--scenes", type=int, default=200)
    options.add_argument("--share", type=float, default=0.5)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    traces = trace_all(chosen.data, chosen.frames, chosen.plans)
    rng = np.random.default_rng(chosen.seed)
    order = rng.permutation(len(traces.courses))
    halves = [[traces.courses[i] for i in part] for part in np.array_split(order, 2)]
    learning, judged = (scenes(rng, half, chosen.scenes) for half in halves)
    reached = {name: replay(name, learning, judged, traces, chosen.share) for name in POLICIES}
    reached["oracle of H"] = [oracle(scene, traces, chosen.share, H) for scene in judged]
    reached["oracle of risk"] = [oracle(scene, traces, chosen.share, risk) for scene in judged]
    reached["full"] = [[STEPS] * len(scene) for scene in judged]
    figures = {
        name: {
            kind: float(
                np.mean(
                    [sum(map(loss, scene, steps)) for scene, steps in zip(judged, all_steps, strict=True)]
                )
            )
            for kind, loss in (("H", H), ("risk", risk))
        }
        for name, all_steps in reached.items()
    }
    full, worst = figures["full"], figures["equal"]
    for _name, row in figures.items():
        for kind in ("H", "risk"):
            row[f"{kind}_excess_over_equals"] = (row[kind] - full[kind]) / (worst[kind] - full[kind])
            row[f"{kind}_over_oracle"] = row[kind] / figures[f"oracle of {kind}"][kind]
    columns = [
        f"{kind}{what}" for kind in ("H", "risk") for what in ("", "_over_oracle", "_excess_over_equals")
    ]
    report.table(
        ["", *columns], [[name, *(row[column] for column in columns)] for name, row in figures.items()]
    )
    report.write(
        chosen.json,
        "orchestrator.allocation",
        {"share": chosen.share, "scenes": chosen.scenes, "costs_ms": traces.costs_ms, "policies": figures},
    )


if __name__ == "__main__":
    main()
