"""Trust statistics by rescanning the whole history: docs/IRP_PROTOCOL.md#4-trust."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise


def trust_statistics(history: Sequence[float]) -> tuple[float, float, float, int]:
    """(monotonicity_ratio, dE_variance, convergence_rate, n)."""
    changes = [after - before for before, after in pairwise(history)]
    n = len(changes)
    if n == 0:
        return 0.0, 0.0, math.nan, 0
    return sum(dE < 0 for dE in changes) / n, statistics.pvariance(changes), (history[0] - history[-1]) / n, n
