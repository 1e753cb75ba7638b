"""Two hours of operation in accelerated time with faults: is anything lost, does memory grow?

The real orchestrator over two simulated plugins: single requests, branched ones and scenes with shared budgets
arrive at random, some are given up. At random a step takes fifty times as long, energies come back as NaN, an
engine raises, and a storm of clients fills the queues. At the end every accepted request must have ended, no
energy be locked, every record that the loops published be written or counted as lost, and the journal verify
(``sage-edge audit verify``).
"""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.orchestrator.simulation import Costs, ReplayPlugin, SimulatedClock, open_simulated
from sage_edge import Budget
from sage_edge.errors import SageError
from sage_edge.native import HaltPolicy
from sage_edge.orchestrator import Entry
from sage_edge.telemetry import TelemetryValidator, load_schema
from sage_edge.telemetry.audit import verify

LONGEST = 12
COSTS = Costs(2.0, 0.5, 3.0, 1.0)


class Operation:
    """A service in simulated time, and what was asked of it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.clock = SimulatedClock()
        policy = HaltPolicy(K=1, eps=1e-3, max_steps=LONGEST)
        self.plugins = [
            ReplayPlugin(name, self.clock, COSTS, halting=policy, longest=LONGEST)
            for name in ("left", "right")
        ]
        self.hrm = open_simulated(
            self.clock,
            self.plugins,
            slots=8,
            queue_size=16,
            rewinds=2,
            history_states=2,
            telemetry_dir=str(folder),
            telemetry_max_bytes=1 << 30,
            power_w=5.0,
        )
        self.open: list[Any] = []
        self.accepted = self.refused = self.answered = self.failed = 0
        self.faults: dict[str, int] = {}

    def run(self, hours: float, rate_per_s: float) -> list[float]:
        """Operate; returns resident memory in MiB after each tenth of the time."""
        end_ns = int(hours * 3600e9)
        memory, next_ns = [], 0
        while self.clock.now_ns < end_ns:
            self.clock.advance_ms(float(self.rng.exponential(1e3 / rate_per_s)))
            self._ask()
            if self.rng.random() < 0.01:
                self._break()
            for _ in range(3):
                self.hrm.serve_once()
            self._collect()
            if self.clock.now_ns >= next_ns:
                memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
                next_ns += end_ns // 10
        while self.open:
            self.hrm.serve_once()
            self._collect()
        return memory

    def _frame(self) -> np.ndarray:
        steps = min(int(self.rng.geometric(1 / 3)), LONGEST)
        return self.plugins[0].prepare([1.0 - 0.05 * k for k in range(steps)])

    def _ask(self) -> None:
        names = ["left", "right"]
        budget = Budget(
            deadline_ms=float(self.rng.uniform(20, 400)) if self.rng.random() < 0.5 else None,
            branches=int(self.rng.integers(1, 4)) if self.rng.random() < 0.1 else 1,
        )
        try:
            if self.rng.random() < 0.2:
                entries = [Entry(str(self.rng.choice(names)), self._frame()) for _ in range(4)]
                tickets = self.hrm.submit_scene(entries, Budget(atp=float(self.rng.uniform(50, 600))))[1]
            else:
                tickets = [self.hrm.submit(str(self.rng.choice(names)), self._frame(), budget)]
        except SageError:
            self.refused += 1
            return
        self.accepted += len(tickets)
        self.open += tickets
        if self.rng.random() < 0.05:
            tickets[0].cancel()

    def _break(self) -> None:
        fault = str(self.rng.choice(["slow", "nan", "crash", "storm"]))
        self.faults[fault] = self.faults.get(fault, 0) + 1
        if fault == "storm":
            for _ in range(64):
                self._ask()
        else:
            self.plugins[int(self.rng.integers(2))].fault = fault

    def _collect(self) -> None:
        for ticket in [ticket for ticket in self.open if ticket.future.done()]:
            self.open.remove(ticket)
            if ticket.future.exception() is None:
                self.answered += 1
            else:
                self.failed += 1


def main() -> None:
    """Operate, audit, print, write."""
    options = report.parser(__doc__)
    options.add_argument("--hours", type=float, default=2.0, help="simulated")
    options.add_argument("--rate", type=float, default=10.0, help="arrivals in a simulated second")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        operation = Operation(Path(folder), chosen.seed)
        memory = operation.run(chosen.hours, chosen.rate)
        operation.hrm.close()
        counts = operation.hrm.telemetry.status()
        audit = verify(Path(folder), validator=TelemetryValidator(load_schema()))
    lost = sum(count for name, count in counts.items() if name.startswith("lost"))
    balance = operation.hrm.ledger.balance
    results = {
        "hours": chosen.hours,
        "accepted": operation.accepted,
        "answered": operation.answered,
        "failed_or_given_up": operation.failed,
        "refused_at_the_door": operation.refused,
        "without_an_end": operation.accepted - operation.answered - operation.failed,
        "faults": operation.faults,
        "records": counts["published"],
        "records_lost": lost,
        "locked_uatp": balance.locked_uatp,
        "audit_is_sound": audit.is_sound,
        "audit_findings": len(audit.findings),
        "memory_mib": memory,
        "memory_growth_second_half_mib": memory[-1] - memory[len(memory) // 2],
    }
    report.table(["", ""], [[name, str(value)] for name, value in results.items()])
    report.write(chosen.json, "orchestrator.endurance", results)


if __name__ == "__main__":
    main()
