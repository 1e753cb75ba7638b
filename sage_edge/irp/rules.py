"""Formulas of the protocol that records, budgets and audits share."""

from __future__ import annotations

import numpy as np


def spent_uatp(power_w: float, spent_us: float) -> int:
    """Micro-ATP of a run as its records state it: from single precision, which is what the mailbox holds.

    Whoever settles a run's budget by this agrees with its final record to the micro-ATP.
    """
    return round(power_w * float(np.float32(spent_us)) * 1e3)  # watts x microseconds x 1000 = nanojoules


def contribution_to_H(trust_weight: float, dE: float, E_scale: float) -> float:
    """What a change of a run's energy took off the orchestrator's: ``-trust_weight * dE / E_scale``.

    Positive is good (docs/IRP_PROTOCOL.md#4-trust).
    """
    return -trust_weight * dE / E_scale
