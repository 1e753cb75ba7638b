"""Poisson arrivals at 70 % load: deadlines met, overruns, and refill against static batches.

The real orchestrator in simulated time: what a batch of n takes is given by --encode-ms, --step-ms and
--row-share (share of the cost that grows with the batch), with a lognormal jitter; courses converge after a
geometric number of steps, truncated to 12, mean 3. The rival keeps the same slots and halting but fills them
only when all are empty (static early-exit batching); a second one gives every member all steps (fixed steps).
Each is also flooded, for its throughput. Waiting times are compared at 70 % of what the *rival* sustains;
deadlines are counted at 70 % of what refill sustains.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.orchestrator.simulation import Costs, ReplayPlugin, SimulatedClock, open_simulated
from sage_edge import Budget
from sage_edge.errors import SageError
from sage_edge.native import HaltPolicy

LONGEST = 12
POLICY = HaltPolicy(K=1, eps=1e-3, max_steps=LONGEST)


def course(rng: np.random.Generator) -> list[float]:
    """Falls by a tenth at each step until it stands still, after a geometric number of steps with mean 3."""
    steps = min(int(rng.geometric(1 / 3)), LONGEST)
    return [1.0 - 0.05 * k for k in range(steps)]


class Bench:
    """A simulated service with one plugin."""

    def __init__(self, costs: Costs, slots: int, jitter: float, seed: int) -> None:
        self.clock = SimulatedClock()
        rng = np.random.default_rng(seed)
        self.plugin = ReplayPlugin(
            "replay",
            self.clock,
            costs,
            halting=POLICY,
            longest=LONGEST,
            jitter=lambda: float(rng.lognormal(0.0, jitter)),
        )
        self.hrm = open_simulated(self.clock, [self.plugin], slots=slots, queue_size=4096, history_states=0)


def arrivals(rng: np.random.Generator, rate_per_ms: float, count: int) -> Iterator[tuple[float, list[float]]]:
    """Times in ms, and what comes."""
    now_ms = 0.0
    for _ in range(count):
        now_ms += rng.exponential(1 / rate_per_ms) if rate_per_ms < math.inf else 0.0
        yield now_ms, course(rng)


def refill(
    costs: Costs,
    slots: int,
    jitter: float,
    rate_per_ms: float,
    count: int,
    deadline_ms: float | None,
    seed: int,
) -> dict[str, Any]:
    """Serve a Poisson stream with the orchestrator."""
    bench = Bench(costs, slots, jitter, seed)
    clock, hrm = bench.clock, bench.hrm
    start_ns = clock.now_ns
    waiting = deque(arrivals(np.random.default_rng(seed), rate_per_ms, count))
    asked: list[tuple[float, Any]] = []
    ended: dict[str, float] = {}
    refused = 0

    def now_ms() -> float:
        return (clock.now_ns - start_ns) / 1e6

    while waiting or len(ended) < len(asked):
        if waiting and len(ended) == len(asked) and waiting[0][0] > now_ms():
            clock.advance_ms(
                waiting[0][0] - now_ms() + 1e-6
            )  # a nanosecond more: rounding must not stand still
        while waiting and waiting[0][0] <= now_ms():
            due_ms, energies = waiting.popleft()
            try:
                ticket = hrm.submit(
                    "replay",
                    bench.plugin.prepare(energies),
                    Budget(deadline_ms=deadline_ms),
                    start_ns=start_ns + round(due_ms * 1e6),
                )
            except SageError:
                refused += 1
                continue
            asked.append((due_ms, ticket))
            ticket.future.add_done_callback(lambda _, t=ticket: ended.setdefault(t.request_id, now_ms()))
        hrm.serve_once()
    results = [(due, ended[t.request_id], t.future) for due, t in asked]
    answered = [(end - due, f.result().run) for due, end, f in results if f.exception() is None]
    spans = [span for span, _ in answered]
    hrm.close()
    late = [span - deadline_ms for span in spans if span > deadline_ms] if deadline_ms else []
    return {
        "requests": count,
        "answered": len(answered),
        "refused": refused + len(results) - len(answered),
        "rate_per_ms": len(answered) / now_ms(),
        "p50_ms": report.percentile(spans, 0.5),
        "p99_ms": report.percentile(spans, 0.99),
        "hit_rate": 1 - (len(late) + refused + len(results) - len(answered)) / count if deadline_ms else None,
        "overrun_p99_ms": report.percentile([max(span - deadline_ms, 0.0) for span in spans], 0.99)
        if deadline_ms
        else None,
        "overrun_max_ms": max(late, default=0.0),
        "mean_steps": float(np.mean([run.step_idx for _, run in answered])),
    }


def static(
    costs: Costs, slots: int, jitter: float, rate_per_ms: float, count: int, seed: int, *, fixed: bool
) -> dict[str, Any]:
    """The same stream in static batches: whoever waits starts together, and all end with the last of them.

    A member that has converged frees nothing; with ``fixed`` every batch takes all steps.
    """
    rng, noise = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    waiting = deque(arrivals(rng, rate_per_ms, count))
    now_ms, spans = 0.0, []
    while waiting:
        now_ms = max(now_ms, waiting[0][0])
        batch = []
        while waiting and waiting[0][0] <= now_ms and len(batch) < slots:
            batch.append(waiting.popleft())
        steps = LONGEST if fixed else max(min(len(energies), LONGEST) for _, energies in batch)
        now_ms += costs.encode_ms(len(batch)) * float(noise.lognormal(0.0, jitter))
        for _ in range(steps):
            now_ms += costs.step_ms(len(batch)) * float(noise.lognormal(0.0, jitter))
        spans += [now_ms - due for due, _ in batch]
    return {
        "rate_per_ms": count / now_ms,
        "p50_ms": report.percentile(spans, 0.5),
        "p99_ms": report.percentile(spans, 0.99),
    }


def main() -> None:
    """Saturate, then load by 70 %."""
    options = report.parser(__doc__)
    options.add_argument("--slots", type=int, nargs="+", default=[8, 16])
    options.add_argument("--encode-ms", type=float, default=2.0, help="first state, alone")
    options.add_argument("--step-ms", type=float, default=2.0, help="a step, alone")
    options.add_argument(
        "--row-share", type=float, nargs="+", default=[0.1, 0.9], help="grows with the batch"
    )
    options.add_argument("--jitter", type=float, default=0.1, help="sigma of the lognormal jitter")
    options.add_argument("--requests", type=int, default=20_000)
    options.add_argument(
        "--deadline-steps", type=float, default=6.0, help="deadline in steps of a full batch"
    )
    options.add_argument("--load", type=float, default=0.7)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    results = []
    for share in chosen.row_share:
        fixed_share = 1 - share
        costs = Costs(
            chosen.encode_ms * fixed_share,
            chosen.encode_ms * share,
            chosen.step_ms * fixed_share,
            chosen.step_ms * share,
        )
        for slots in chosen.slots:
            results.append(_measure(costs, share, slots, chosen))
    report.table(
        [
            "grows",
            "slots",
            "throughput: refill/static",
            "refill/fixed",
            "p99 at load: refill/static",
            "deadlines met",
            "overrun p99 / step",
            "overrun max / step",
        ],
        [
            [
                r["row_share"],
                r["slots"],
                r["refill_over_static"],
                r["refill_over_fixed"],
                r["p99_over_static"],
                f"{r['with_deadline']['hit_rate']:.4%}",
                r["with_deadline"]["overrun_p99_ms"] / r["step_ms"],
                r["with_deadline"]["overrun_max_ms"] / r["step_ms"],
            ]
            for r in results
        ],
    )
    report.write(chosen.json, "orchestrator.load", results)


def _measure(costs: Costs, share: float, slots: int, chosen: Any) -> dict[str, Any]:
    common = (costs, slots, chosen.jitter)
    flood = math.inf
    count, seed = chosen.requests, chosen.seed
    full = refill(*common, flood, min(count, 4000), None, seed)
    batch = static(*common, flood, count, seed, fixed=False)
    all_steps = static(*common, flood, count, seed, fixed=True)
    step_ms, deadline_ms = costs.step_ms(slots), chosen.deadline_steps * costs.step_ms(slots)
    static_rate = chosen.load * batch["rate_per_ms"]
    at_load = refill(*common, static_rate, count, None, seed)
    return {
        "row_share": share,
        "slots": slots,
        "step_ms": step_ms,
        "refill_over_static": full["rate_per_ms"] / batch["rate_per_ms"],
        "refill_over_fixed": full["rate_per_ms"] / all_steps["rate_per_ms"],
        "at_load": at_load,
        "static_at_load": (slow := static(*common, static_rate, count, seed, fixed=False)),
        "p99_over_static": at_load["p99_ms"] / slow["p99_ms"],
        "deadline_ms": deadline_ms,
        "with_deadline": refill(*common, chosen.load * full["rate_per_ms"], count, deadline_ms, seed),
    }


if __name__ == "__main__":
    main()
