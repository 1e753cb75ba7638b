"""What the early stop saves in time: wall milliseconds per frame, with one slot and with more."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from sage_edge.config import Settings
from sage_edge.evaluation.labelled import Labelled
from sage_edge.orchestrator import HRM, Budget, open_hrm

SLOTS = (1, 8)
#: So many frames are timed; they are prepared beforehand, so that reading files is not.
TIMED_FRAMES = 32


def time_slots(settings: Settings, frames: Labelled) -> dict[str, Any]:
    """Time the default halt and all steps on the first frames of a split.

    Args:
        settings: The service's; ``slots`` is varied.
        frames: The split.

    Returns:
        For each number of slots: milliseconds per frame at the default halt, after all steps, and all steps
        over default.
    """
    report = {}
    for slots in SLOTS:
        with closing(
            open_hrm(replace(settings, slots=slots, queue_size=TIMED_FRAMES, telemetry_dir=""))
        ) as hrm:
            inputs = [
                hrm.prepare("vision", labelled.frame) for labelled in itertools.islice(frames, TIMED_FRAMES)
            ]
            default_ms = _frame_ms(hrm, inputs, Budget())
            full_ms = _frame_ms(hrm, inputs, Budget(eps=0.0))
        report[f"slots_{slots}"] = {
            "default_ms": default_ms,
            "all_steps_ms": full_ms,
            "time_saved": full_ms / default_ms,
        }
    return report


def _frame_ms(hrm: HRM, inputs: Sequence[Any], budget: Budget) -> float:
    """The best of two rounds: the first warms up."""
    rounds_ms = []
    for _ in range(2):
        start_s = time.monotonic()
        tickets = [hrm.submit("vision", x0, budget) for x0 in inputs]
        for ticket in tickets:
            ticket.future.result()
        rounds_ms.append((time.monotonic() - start_s) * 1e3 / len(inputs))
    return min(rounds_ms)
