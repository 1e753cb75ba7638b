"""Whether the telemetry keeps up with a loop that never rests.

Eight slots, a millisecond of computing for each step of all, every request refined to its last step: so each
tick leaves a record for each slot. The step computes without the interpreter's lock, as an engine does, or
with it, as a plugin in Python does. What is told is what the service itself counts.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import numpy as np

from benchmarks import report
from sage_edge import HRM, Budget, Encoded, HaltPolicy, Invariants, LatentPlugin, Settings

SLOTS = 8
STEPS = 100


class Busy(LatentPlugin):
    """Computes for a while at each step, and comes half as near to a target.

    State space: float32 [4].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target.
    Coherence contribution: the fall of that distance.
    """

    name = "busy"
    invariants = Invariants("vector", "gaussian", "mean-squared-distance", "squared units")
    halting = HaltPolicy(eps=0.0, max_steps=STEPS)
    lo, hi, step_size = -100.0, 100.0, 0.5
    state_shape, context_shapes = (4,), {"target": (4,)}
    step_s = 1e-3
    holds_lock = False
    matrix = np.full((96, 96), 1e-3, np.float32)

    def prepare(self, x: Any) -> Any:
        return np.asarray(x, np.float32)

    def example(self) -> Any:
        return np.ones(4, np.float32)

    def encode(self, inputs: Any) -> Encoded:
        target = np.stack(inputs)
        return Encoded(np.zeros_like(target), {"target": target}, target**2)

    def advance(self, z: Any, context: Any, step_size: Any) -> Any:
        end_s = time.perf_counter() + self.step_s
        while time.perf_counter() < end_s:
            if not self.holds_lock:
                self.matrix @ self.matrix
        delta = context["target"] - z
        return delta, (z + step_size[:, None] * delta - context["target"]) ** 2

    def energies(self, z: Any, context: Any) -> Any:
        return (z - context["target"]) ** 2


def sustained(seconds: float, step_ms: float, *, holds_lock: bool) -> dict[str, float]:
    """Records a second that the loop made, and what became of them."""
    Busy.step_s, Busy.holds_lock = step_ms / 1e3, holds_lock
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(slots=SLOTS, queue_size=64, threads=1, telemetry_dir=folder)
        hrm = HRM(settings, {"busy": Busy()})
        hrm.start()
        before = hrm.telemetry.status()
        start_s, cpu_s, ended = time.perf_counter(), time.process_time(), 0
        waiting = [hrm.submit("busy", np.ones(4, np.float32), Budget(eps=0.0)) for _ in range(3 * SLOTS)]
        while waiting:
            waiting.pop(0).future.result()
            ended += 1
            if time.perf_counter() < start_s + seconds:
                waiting.append(hrm.submit("busy", np.ones(4, np.float32), Budget(eps=0.0)))
        took_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
        hrm.close()
        after = hrm.telemetry.status()
    told = {name: after[name] - before[name] for name in after}
    made = ended * (STEPS + 1)
    return {
        "records_per_s": made / took_s,
        "lost_mailbox": told["lost_mailbox"],
        "lost": sum(count for name, count in told.items() if name.startswith("lost_")),
        "lost_share": told["lost_mailbox"] / made,
        "cores": cpu_s / took_s,
    }


def main() -> None:
    """Measure, print, write."""
    options = report.parser(__doc__)
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--step-ms", type=float, default=1.0)
    chosen = options.parse_args()
    results = {
        name: sustained(chosen.seconds, chosen.step_ms, holds_lock=name == "Python")
        for name in ("engine", "Python")
    }
    report.table(
        ["a step of", "records/s", "lost in the mailbox", "share", "lost in all", "cores"],
        [
            [
                name,
                row["records_per_s"],
                row["lost_mailbox"],
                f"{row['lost_share']:.2%}",
                row["lost"],
                row["cores"],
            ]
            for name, row in results.items()
        ],
    )
    report.write(chosen.json, "telemetry", results)


if __name__ == "__main__":
    main()
