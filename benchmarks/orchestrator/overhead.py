"""What the orchestrator costs per step: 64 refinements at once, engines that take no time.

Real time, one thread. A step is one state of one refinement: halting, record, ledger, profile and budget. Three
ways: single requests, scenes of 16, and scenes of 16 that share a budget. The rival is the plainest loop that
could do it: over 64 objects, each keeps its energy and asks whether it has converged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.orchestrator.simulation import Costs, ReplayPlugin, SimulatedClock
from sage_edge import HRM, Budget, Settings
from sage_edge.native import HaltPolicy
from sage_edge.orchestrator import Entry

LONGEST = 64
FREE = Costs(0.0, 0.0, 0.0, 0.0)


def course() -> list[float]:
    """Falls all the way, so that nobody converges."""
    return [0.98**k for k in range(LONGEST + 1)]


def open_real(concurrent: int) -> tuple[HRM, ReplayPlugin]:
    """The orchestrator on the system's clock, over a plugin whose engines return at once."""
    policy = HaltPolicy(K=1, eps=0.0, max_steps=LONGEST)
    plugin = ReplayPlugin("replay", SimulatedClock(), FREE, halting=policy, longest=LONGEST)
    settings = Settings(
        slots=concurrent, queue_size=concurrent, telemetry_dir="", board_period_s=0.0, rewinds=0
    )
    hrm = HRM(settings, {"replay": plugin})
    hrm.warm_up()
    return hrm, plugin


def measure(
    hrm: HRM, plugin: ReplayPlugin, concurrent: int, submit: Callable[[Sequence[Entry]], Any]
) -> list[float]:
    """Microseconds for each step, of every tick with all slots live."""
    prepared = plugin.prepare(course())
    submit([Entry("replay", prepared) for _ in range(concurrent)])
    hrm.serve_once()
    spans = []
    while hrm.status()["replay"]["live"] == concurrent:
        began_ns = time.perf_counter_ns()
        hrm.serve_once()
        spans.append((time.perf_counter_ns() - began_ns) / 1e3 / concurrent)
    return spans[:-1]


class _Plain:
    """What the plainest loop keeps."""

    def __init__(self) -> None:
        self.energies: list[float] = []

    def observe(self, E: float) -> bool:
        self.energies.append(E)
        return len(self.energies) > 1 and abs(self.energies[-1] - self.energies[-2]) < 0.0


def plain(concurrent: int) -> list[float]:
    """The rival's microseconds for each step."""
    runs, energies = [_Plain() for _ in range(concurrent)], np.array(course())
    spans = []
    for k in range(LONGEST):
        began_ns = time.perf_counter_ns()
        for run in runs:
            run.observe(float(energies[k]))
        spans.append((time.perf_counter_ns() - began_ns) / 1e3 / concurrent)
    return spans


def _scenes(hrm: HRM, entries: Sequence[Entry], shared: Budget) -> None:
    for first in range(0, len(entries), 16):
        hrm.submit_scene(entries[first : first + 16], shared)


def main() -> None:
    """Measure, print, write."""
    options = report.parser(__doc__)
    options.add_argument("--concurrent", type=int, default=64)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    ways: dict[str, Callable[[HRM], Callable[[Sequence[Entry]], Any]]] = {
        "single requests": lambda hrm: lambda entries: [hrm.submit(e.plugin, e.prepared) for e in entries],
        "scenes of 16": lambda hrm: lambda entries: _scenes(hrm, entries, Budget()),
        "scenes of 16 with a budget": lambda hrm: lambda entries: _scenes(hrm, entries, Budget(atp=1e4)),
    }
    results = {"plain loop": [span for _ in range(chosen.rounds) for span in plain(chosen.concurrent)]}
    for name, way in ways.items():
        spans = []
        for _ in range(chosen.rounds):
            hrm, plugin = open_real(chosen.concurrent)
            spans += measure(hrm, plugin, chosen.concurrent, way(hrm))
            hrm.close()
        results[name] = spans
    summary = {
        name: {"median_us": report.median(spans), "p99_us": report.percentile(spans, 0.99)}
        for name, spans in results.items()
    }
    report.table(
        ["", "us per step, median", "p99"],
        [[name, r["median_us"], r["p99_us"]] for name, r in summary.items()],
    )
    report.write(chosen.json, "orchestrator.overhead", summary | {"concurrent": chosen.concurrent})


if __name__ == "__main__":
    main()
