"""Paired bootstrap over frames: how far a difference in mIoU could be luck of the draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sage_edge.quality import iou_per_class

DRAWS = 10_000


def miou_interval(
    confusions: NDArray[np.int64], rival: NDArray[np.int64] | None = None, seed: int = 0
) -> tuple[float, float]:
    """Estimate the 95 % interval of an mIoU, or of its lead over a rival on the same frames.

    Args:
        confusions: int64 [N, classes, classes], one per frame.
        rival: The same for another method; its mIoU is subtracted draw by draw.
        seed: Of the draws.

    Returns:
        The 2.5 % and 97.5 % quantiles over 10,000 draws of N frames with replacement.
    """
    frames = len(confusions)
    counts = np.random.default_rng(seed).multinomial(frames, np.full(frames, 1 / frames), size=DRAWS)
    drawn = _mean_ious(counts, confusions)
    if rival is not None:
        drawn -= _mean_ious(counts, rival)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _mean_ious(counts: NDArray[np.int64], confusions: NDArray[np.int64]) -> NDArray[np.float64]:
    summed = np.tensordot(counts, confusions, axes=1)
    means: NDArray[np.float64] = np.nanmean(iou_per_class(summed), axis=-1)
    return means
