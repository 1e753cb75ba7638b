"""Runs as the loop and the orchestrator would describe them, for the tests of this room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.native import HALT_REASONS, RECORD_DTYPE
from sage_edge.telemetry import RunInfo

START_NS = 5_000_000_000
STEP_NS = 2_000_000
FEASIBLE, CLOSING = 1, 2

_INFO = RunInfo(
    request_id="request-1",
    plugin="vision",
    plugin_version="0.1.0",
    backend="onnxruntime-cpu",
    device="x86_64",
    model_sha256="ab" * 32,
    E_scale=2.0,
    energy_units="expected pixel error",
    state_space="image-latent",
    noise_model="gaussian",
    energy_fn="learned-error",
    entity_id="robot-7",
    max_steps=8,
    deadline_ms=40.0,
    eps=1e-4,
    ATP_allocated=500.0,
    power_w=15.0,
    price_source="declared",
    start_ns=START_NS,
    trust=lambda E_norm: 1.0 - E_norm / 2.0,
)


def run_info(**changes: Any) -> RunInfo:
    """The run that the tests share, with some fields changed."""
    return replace(_INFO, **changes)


def raw_run(
    energies: Sequence[float], *, run_id: int = 1, halt_reason: str | None = "slope<eps"
) -> NDArray[Any]:
    """What the loop writes for a run with these energies: RECORD_DTYPE [len(energies)].

    Plain and slow: every statistic is computed from the whole history.
    """
    records = np.zeros(len(energies), RECORD_DTYPE)
    for step, record in enumerate(records):
        history = np.float64(energies[: step + 1])
        changes = np.diff(history)
        record["run_id"] = run_id
        record["time_ns"] = START_NS + (step + 1) * STEP_NS
        record["E"], record["E0"], record["best_E"] = history[-1], history[0], history.min()
        record["dE"] = changes[-1] if step else np.nan
        record["residual"] = 0.5**step if step else np.nan
        record["monotonicity_ratio"] = (changes < 0).mean() if step else 0.0
        record["dE_variance"] = changes.var() if step else 0.0
        record["spent_us"] = 250.5 * (step + 1)
        record["step_idx"] = step
        record["flags"] = FEASIBLE
    records["halt_reason"][-1] = HALT_REASONS.index(halt_reason)
    return records
