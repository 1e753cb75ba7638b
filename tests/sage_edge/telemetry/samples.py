"""Runs as the loop and the orchestrator would describe them, for the tests of this room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.irp import Invariants, TrustTable
from sage_edge.native import HALT_REASONS, RECORD_DTYPE, HaltPolicy
from sage_edge.telemetry import (
    ZERO_HASH,
    PluginInfo,
    RunDirectory,
    RunInfo,
    TelemetryValidator,
    load_schema,
    seal,
)
from sage_edge.telemetry.board import BoardSample
from sage_edge.telemetry.steps import StepWriter

#: A look at an Orin Nano.
ORIN = BoardSample(
    rails_mw={("VDD_IN", "ina3221"): 6219.84},
    temperatures_c={"cpu-thermal": 51.5, "tj-thermal": 52.75},
    gpu_load=0.137,
    gpu_frequency_hz=624_750_000,
    memory_bytes=8 << 30,
    memory_available_bytes=4 << 30,
    swap_bytes=0,
    swap_free_bytes=0,
    power_mode="15W",
    over_current_events=7,
    throttled=False,
)
START_NS = 5_000_000_000
STEP_NS = 2_000_000
FEASIBLE, CLOSING, REWOUND = 1, 2, 8

_INFO = RunInfo(
    plugin=PluginInfo(
        name="vision",
        version="0.1.0",
        backend="onnxruntime-cpu",
        device="x86_64",
        model_sha256="ab" * 32,
        invariants=Invariants("image-latent", "gaussian", "learned-error", "expected pixel error"),
        calibration=TrustTable((0.0, 2.0), (1.0, 0.0)),
    ),
    policy=HaltPolicy(E_scale=2.0, eps=1e-4, max_steps=8),
    request_id="request-1",
    entity_id="robot-7",
    start_ns=START_NS,
    power_w=15.0,
    price_source="declared",
    deadline_ms=40.0,
    ATP_allocated=500.0,
)
_VALIDATOR = TelemetryValidator(load_schema())
_PLUGIN_FIELDS = set(PluginInfo.__dataclass_fields__)


def run_info(**changes: Any) -> RunInfo:
    """The run that the tests share, with some fields of it, or of its plugin, changed."""
    of_plugin = {name: changes.pop(name) for name in list(changes) if name in _PLUGIN_FIELDS}
    return replace(_INFO, plugin=replace(_INFO.plugin, **of_plugin), **changes)


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


def written(
    raws: NDArray[Any],
    info: RunInfo | None = None,
    *,
    seq: int = 0,
    board: BoardSample | None = None,
    extras: dict[int, Any] | None = None,
    given_up: list[tuple[str, str]] | None = None,
) -> list[dict[str, Any]]:
    """The records made of what the loop wrote, each tied to nothing; lost ones go to ``given_up``."""
    directory, lost = RunDirectory(), [] if given_up is None else given_up
    for run_id in set(raws["run_id"].tolist()):
        directory.open(run_id, info or run_info())
    for step_idx, extra in (extras or {}).items():
        directory.annotate(1, step_idx, extra)
    writer = StepWriter(directory, _VALIDATOR, lambda stage, why: lost.append((stage, why)))
    drafts = writer.write(raws, seq=seq, unix_offset_ns=10**18, board=board)
    assert lost == [] or given_up is not None
    return [dict(seal(made, ZERO_HASH)) for made in drafts]


#: The fields of an event of each kind that has some.
EVENTS: dict[str, dict[str, Any]] = {
    "ledger": {
        "ledger_seq": 0,
        "operation": "open",
        "scene_id": None,
        "amount_uatp": 5_000_000,
        "spent_uatp": None,
        "balance": {
            "initial_uatp": 5_000_000,
            "available_uatp": 5_000_000,
            "locked_uatp": 0,
            "adp_uatp": 0,
        },
        "energy_ratio": 1.0,
    },
    "allocation": {
        "scene_id": "scene-1",
        "policy": "greedy",
        "cause": "halt",
        "limits": [{"run_id": 1, "plugin": "vision", "limit_uatp": 4_000_000, "spent_uatp": 1_500_000}],
    },
    "scene": {
        "scene_id": "scene-1",
        "members": [
            {
                "run_id": 1,
                "request_id": "request-1",
                "plugin": "vision",
                "weight": 1.0,
                "E_norm_first": 1.0,
                "E_norm_last": 0.625,
                "steps": 3,
                "halt_reason": "slope<eps",
                "spent_uatp": 15_030_000,
            }
        ],
        "H_first": 1.0,
        "H_last": 0.625,
        "K_H": 3,
        "eps_H": 1e-3,
        "global_halt": False,
        "budget_uatp": None,
    },
    "trust": {
        "role": "vision",
        "run_id": 1,
        "request_id": "request-1",
        "t3": {
            "talent": {"from": 0.3, "change": 0.006, "to": 0.306},
            "training": {"from": 0.3, "change": 0.0048, "to": 0.3048},
            "temperament": {"from": 0.3, "change": 0.0036, "to": 0.3036},
        },
        "quality": 0.8,
        "quality_source": "label",
        "is_success": True,
        "outcome_class": None,
        "rule_id": "t3-quality-1",
        "update_n": 1,
        "repetition_n": 1,
        "idle_months": 0.0,
        "weight_before": 0.3,
        "weight_after": 0.30492,
        "v3": None,
        "lrc": {
            "policy_id": "edge",
            "L": 0.3,
            "R": 0.7,
            "C": 0.5,
            "quota_ref": "sage-edge/atp",
            "damping": 0.592,
            "omega0": 2.58,
            "threshold": 0.66,
            "review_days": 8,
            "quorum": 3,
            "cost": 46,
            "reject_penalty": 0.59,
            "fast_track": 0.14,
        },
    },
    "checkpoint": {"signed_seq": 3, "signed_hash": "0" * 64, "public_key": "1" * 64, "signature": "2" * 128},
}
