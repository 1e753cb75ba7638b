"""The record of a step, field by field and slowly: the twin of csrc/core/step_text.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple, TypeAlias

from sage_edge.irp.rules import contribution_to_H, spent_uatp
from sage_edge.native import FLAG_CLOSING, HALT_REASONS
from sage_edge.telemetry.board import BoardSample
from sage_edge.telemetry.canonical import ZERO_HASH
from sage_edge.telemetry.runs import RunInfo

SCHEMA_VERSION = "1.4"

#: The protocol has four words only.
PROTOCOL_WORD = {
    None: None,
    "slope<eps": "slope<eps",
    "feasible": "feasible",
    "max_steps": "max_steps",
    "timeout": "timeout",
    "confidence": "feasible",
    "budget": "max_steps",
    "global_halt": "slope<eps",
    "diverged": "timeout",
    "cancelled": "timeout",
    "error": "timeout",
}

Record: TypeAlias = dict[str, Any]

_FEASIBLE, _CLOSING, _REWOUND = 1, FLAG_CLOSING, 8


class RawRecord(NamedTuple):
    """A record as the loop wrote it; the fields of ``native.RECORD_DTYPE``, in its order."""

    seq: int
    run_id: int
    time_ns: int
    E: float
    dE: float
    E0: float
    best_E: float
    residual: float
    monotonicity_ratio: float
    dE_variance: float
    spent_us: float
    step_idx: int
    branch: int
    plugin: int
    halt_reason: int
    flags: int

    @property
    def is_final(self) -> bool:
        """Whether it is the last record of its run."""
        return self.halt_reason != 0

    @property
    def is_closing(self) -> bool:
        """Whether it ends a run between two steps and repeats the last state."""
        return bool(self.flags & _CLOSING)

    @property
    def is_rewound(self) -> bool:
        """Whether the run went back to this state from that of ``step_idx``."""
        return bool(self.flags & _REWOUND)

    @property
    def is_step(self) -> bool:
        """Whether a step led to it."""
        return self.step_idx > 0 and not (self.is_closing or self.is_rewound)


def complete(
    raw: RawRecord,
    info: RunInfo,
    *,
    seq: int,
    unix_offset_ns: int,
    n_dE: int,
    board: BoardSample | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Record:
    """Join what the loop wrote with what is known of the run.

    Args:
        raw: From the mailbox.
        info: The run that ``raw.run_id`` names.
        seq: The record's place among all records of the service.
        unix_offset_ns: Unix time minus monotonic time, in nanoseconds.
        n_dE: Steps so far that changed the energy by a finite amount.
        board: The newest look at the board, which a final record tells of; None without one.
        extra: What the plugin adds; None where it adds nothing.

    Returns:
        A record of schema version 1.4, not yet in the chain: finite numbers only, None where undefined.
    """
    plugin, policy = info.plugin, info.policy
    return {
        **_envelope("step", info.entity_id, seq, raw.time_ns, unix_offset_ns),
        "role": info.role,
        "run_id": raw.run_id,
        "request_id": info.request_id,
        "scene_id": info.scene_id,
        "plugin": plugin.name,
        "plugin_version": plugin.version,
        "model_sha256": plugin.model_sha256,
        "backend": plugin.backend,
        "device": plugin.device,
        "branch_id": raw.branch,
        "rewound_from": raw.step_idx if raw.is_rewound else None,
        "state_space": plugin.invariants.state_space,
        "noise_model": plugin.invariants.noise_model,
        "energy_fn": plugin.invariants.energy_fn,
        "energy_units": plugin.invariants.energy_units,
        "E_scale": policy.E_scale,
        "eps": policy.eps,
        "step_idx": raw.step_idx,
        "steps": raw.step_idx if raw.is_final else None,
        "E": raw.E if isfinite(raw.E) else 1.7976931348623157e308,
        "E_norm": _finite(raw.E / policy.E_scale),
        "dE": _finite(raw.dE),
        "E0": _finite(raw.E0),
        "best_E": _finite(raw.best_E),
        "residual": _finite(raw.residual),
        "feasible": bool(raw.flags & _FEASIBLE),
        "closing": raw.is_closing,
        "halt_reason": PROTOCOL_WORD[HALT_REASONS[raw.halt_reason]],
        "halt_cause": HALT_REASONS[raw.halt_reason],
        "trust_weight": info.trust_weight,
        "trust": _trust(raw, info, n_dE),
        "budget": _budget(raw, info),
        "LRC_context": {
            "policy_id": info.lrc.policy_id,
            "L": info.lrc.L,
            "R": info.lrc.R,
            "C": info.lrc.C,
            "quota_ref": info.lrc.quota_ref,
            "threshold": info.lrc.threshold,
            "quorum": info.lrc.quorum,
            "cost": info.lrc.cost,
        },
        "board": _board(board) if board and raw.is_final else None,
        "extra": dict(extra) if extra else None,
    }


def _envelope(kind: str, entity_id: str, seq: int, time_ns: int, unix_offset_ns: int) -> Record:
    """What every record carries; the hashes are set when it is chained."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "entity_id": entity_id,
        "seq": seq,
        "ts_unix_ns": time_ns + unix_offset_ns,
        "ts_mono_ns": time_ns,
        "prev_hash": ZERO_HASH,
        "record_hash": ZERO_HASH,
    }


def _trust(raw: RawRecord, info: RunInfo, n_dE: int) -> Record:
    return {
        "monotonicity_ratio": raw.monotonicity_ratio,
        "dE_variance": raw.dE_variance,
        "convergence_rate": _finite((raw.E0 - raw.E) / n_dE) if n_dE else None,
        "contribution_to_H": _finite(contribution_to_H(info.trust_weight, raw.dE, info.policy.E_scale)),
        "n_dE": n_dE,
        "expected_quality": _expected_quality(raw.best_E / info.policy.E_scale, info),
    }


def _expected_quality(best_E_norm: float, info: RunInfo) -> float | None:
    calibration = info.plugin.calibration
    return calibration(best_E_norm) if calibration is not None and isfinite(best_E_norm) else None


def _budget(raw: RawRecord, info: RunInfo) -> Record:
    time_ms = max(0.0, (raw.time_ns - info.start_ns) / 1e6)
    spent_micro_atp = spent_uatp(info.power_w, raw.spent_us)
    return {
        "ATP_unit": "mJ",
        "ATP_allocated": info.ATP_allocated,
        "ATP_spent": spent_micro_atp / 1e6,
        "ATP_remaining": _remaining_atp(info.ATP_allocated, spent_micro_atp),
        "price_source": info.price_source,
        "power_w": info.power_w,
        "time_ms": time_ms,
        "deadline_remaining_ms": None if info.deadline_ms is None else info.deadline_ms - time_ms,
        "steps_remaining": info.policy.max_steps - raw.step_idx,
    }


def _board(sample: BoardSample) -> Record:
    return {"power_mode": sample.power_mode, "temp_C": sample.temp_c, "throttled": sample.throttled}


def _remaining_atp(allocated: float | None, spent_micro_atp: int) -> float | None:
    """Exact to the micro-ATP; below zero when the last step cost more than was foreseen."""
    return None if allocated is None else (round(allocated * 1e6) - spent_micro_atp) / 1e6


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
