"""What a record costs the drain from the mailbox to the file: made, checked, chained, written, published.

Beside it, in the same rounds and on the same records, the plain way that needs no code of ours: the check of
jsonschema and ``json.dumps``, without a chain. Medians over the rounds.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator

from benchmarks import report
from sage_edge import HaltPolicy, Invariants, Settings
from sage_edge.clock import SystemClock
from sage_edge.native import RECORD_DTYPE, Ring, RingReader
from sage_edge.telemetry import PluginInfo, Record, RunInfo, Telemetry, load_schema

STATES = 5
INFO = RunInfo(
    plugin=PluginInfo(
        name="vision",
        version="0.1.0",
        backend="onnxruntime-cpu",
        device="x86_64",
        model_sha256="ab" * 32,
        invariants=Invariants("image-latent", "gaussian", "learned-error", "expected pixel error"),
    ),
    policy=HaltPolicy(E_scale=2.0, max_steps=8),
    request_id="b3f1",
    entity_id="robot-7",
    start_ns=0,
    power_w=15.0,
    price_source="declared",
    deadline_ms=40.0,
    ATP_allocated=500.0,
)


def raw_records(runs: int) -> np.ndarray:
    """RECORD_DTYPE [runs * STATES]: runs that fall by half at each step."""
    records = np.zeros(runs * STATES, RECORD_DTYPE)
    step = np.arange(len(records)) % STATES
    records["run_id"] = np.arange(len(records)) // STATES
    records["step_idx"] = step
    records["E"] = records["best_E"] = 2.0 * 0.5**step
    records["E0"] = 2.0
    records["dE"] = np.where(step > 0, -records["E"], np.nan)
    records["monotonicity_ratio"] = step > 0
    records["spent_us"] = 250.5 * (step + 1)
    records["halt_reason"][step == STATES - 1] = 3
    return records


def drained(raws: np.ndarray, audit_every: int) -> tuple[float, list[Record]]:
    """Microseconds for each record from the start of the drain to its end, and the records."""
    ring = Ring(1 << (len(raws) - 1).bit_length())
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(telemetry_dir=folder, telemetry_memory=len(raws), audit_every=audit_every)
        telemetry = Telemetry([RingReader(ring)], settings=settings, clock=SystemClock())
        for run in np.unique(raws["run_id"]).tolist():
            telemetry.directory.open(run, replace(INFO, request_id=f"run-{run}"))
        ring.push_many(raws)
        start_s = time.perf_counter()
        telemetry.start()
        telemetry.close()
        elapsed_s = time.perf_counter() - start_s
        records = [dict(r) for r in telemetry.hub.after(-1, len(raws))[0] if r["kind"] == "step"]
    return elapsed_s / len(raws) * 1e6, records


def plain_way(records: list[Record]) -> float:
    """Microseconds for each record to check it with jsonschema and write it as JSON."""
    validator = Draft202012Validator(load_schema())
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "plain.jsonl").open("w") as file:
        start_s = time.perf_counter()
        for record in records:
            assert validator.is_valid(record)
            file.write(json.dumps(record, separators=(",", ":")) + "\n")
        return (time.perf_counter() - start_s) / len(records) * 1e6


def main() -> None:
    """Measure, print, write."""
    options = report.parser(__doc__)
    options.add_argument("--records", type=int, default=5000)
    options.add_argument("--rounds", type=int, default=7)
    chosen = options.parse_args()
    raws = raw_records(chosen.records // STATES)
    rounds = []
    for _ in range(chosen.rounds):
        whole_us, records = drained(raws, audit_every=1024)
        rounds.append({"drain_us": whole_us, "plain_us": plain_way(records[:500])})
    results: dict[str, Any] = {
        name: report.median([measured[name] for measured in rounds]) for name in rounds[0]
    }
    results["ratio"] = report.median([measured["plain_us"] / measured["drain_us"] for measured in rounds])
    report.table(
        ["drain, chained and signed us", "jsonschema + json.dumps us", "ratio"],
        [[results["drain_us"], results["plain_us"], results["ratio"]]],
    )
    report.write(chosen.json, "drain", results)


if __name__ == "__main__":
    main()
