"""The halting rule, as docs/IRP_PROTOCOL.md#3-halting states it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sage_edge.native import HaltPolicy


def halt_reason(
    history: Sequence[float],
    policy: HaltPolicy,
    *,
    feasible: bool = True,
    gap: float = 0.0,
    spent_us: float = 0.0,
    charge_us: float = 0.0,
    now_ns: int = 0,
    margin_ns: int = 0,
) -> str | None:
    energies = [E / policy.E_scale for E in history]
    first, last, k = energies[0], energies[-1], len(energies) - 1
    window = energies[-policy.K - 1 :]
    ceiling = first + (policy.divergence_factor - 1) * max(abs(first), 1.0)
    flat = k >= policy.K and all(map(math.isfinite, window)) and max(window) - min(window) < policy.eps
    rules = [
        ("diverged", not (math.isfinite(first) and math.isfinite(last)) or last > ceiling),
        ("slope<eps", flat and feasible and gap <= policy.gap_tolerance),
        ("feasible", policy.halt_when_feasible and feasible and gap <= policy.gap_tolerance),
        ("confidence", feasible and last <= policy.target_E_norm),
        ("max_steps", k >= policy.max_steps),
        ("budget", spent_us + charge_us > policy.budget_us),
        ("timeout", now_ns + margin_ns >= policy.deadline_ns),
    ]
    return next((reason for reason, holds in rules if holds), None)
