"""What the refinement loop costs outside the engine: the share of a tick that is not a network.

The vision model that ships, its frame, slots of 1 and 8, every slot live.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks import report
from sage_edge import Budget, Settings, open_hrm
from sage_edge.frames import decode_image

FRAME = Path(__file__).parents[1] / "demos" / "frames" / "nuclei.webp"


def measure(slots: int, requests: int) -> dict[str, float]:
    """Mean tick and engine time over all ticks of ``requests`` full refinements, milliseconds."""
    settings = Settings(slots=slots, queue_size=requests, telemetry_dir="")
    hrm = open_hrm(settings)
    frame = hrm.prepare("vision", decode_image(FRAME.read_bytes(), 1 << 20))
    tickets = [hrm.submit("vision", frame, Budget(eps=0.0)) for _ in range(requests)]
    for ticket in tickets:
        ticket.future.result()
    hrm.close()
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(hrm.telemetry.metrics.exposition().decode())
        for sample in family.samples
    }
    ticks = samples["sage_tick_duration_seconds_count"]
    tick_ms = samples["sage_tick_duration_seconds_sum"] / ticks * 1e3
    engine_ms = samples["sage_engine_duration_seconds_sum"] / ticks * 1e3
    return {"tick_ms": tick_ms, "engine_ms": engine_ms, "overhead": 1 - engine_ms / tick_ms, "ticks": ticks}


def main() -> None:
    """Measure, print, write."""
    options: argparse.ArgumentParser = report.parser(__doc__)
    options.add_argument("--requests", type=int, default=160)
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    results = {}
    for slots in (1, 8):
        rounds = [measure(slots, chosen.requests) for _ in range(chosen.rounds)]
        results[slots] = sorted(rounds, key=lambda row: row["overhead"])[len(rounds) // 2]
    report.table(
        ["slots", "tick ms", "engine ms", "outside the engine"],
        [[s, r["tick_ms"], r["engine_ms"], f"{r['overhead']:.1%}"] for s, r in results.items()],
    )
    report.write(chosen.json, "loop", results)


if __name__ == "__main__":
    main()
