"""The trust table: what quality an energy has meant, on frames that no weight was fitted to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.vision.trajectory import Trajectories
from sage_edge.quality import mean_iou

KNOTS = 12


def decreasing_fit(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit the decreasing step function nearest to the points: pool adjacent violators.

    Args:
        x: [N], any order.
        y: [N].

    Returns:
        Mean x (increasing) and mean y (not increasing) of every pool.
    """
    order = np.argsort(x, kind="stable")
    pools: list[tuple[float, float, int]] = []
    for x_sum, y_sum in zip(x[order], y[order], strict=True):
        pools.append((float(x_sum), float(y_sum), 1))
        while len(pools) > 1 and pools[-2][1] * pools[-1][2] < pools[-1][1] * pools[-2][2]:
            last, before = pools.pop(), pools.pop()
            pools.append((last[0] + before[0], last[1] + before[1], last[2] + before[2]))
    sums = np.array(pools)
    return sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2]


def trust_table(run: Trajectories, scale: float) -> dict[str, list[float]]:
    """Map a normalised energy to the mIoU to be expected of its frame, as at most KNOTS knots.

    Every state counts, not only where a run halts: an answer may be asked for at any step.
    """
    quality = np.array([mean_iou(counts) for counts in run.confusions.reshape(-1, *run.confusions.shape[2:])])
    x, y = decreasing_fit(run.energies.ravel() / scale, quality)
    at = np.interp(np.linspace(0, 1, min(KNOTS, len(x))), np.linspace(0, 1, len(x)), x)
    return {
        "E_norm": [round(float(v), 6) for v in at],
        "quality": [round(float(v), 4) for v in np.interp(at, x, y)],
    }
