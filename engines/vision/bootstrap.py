"""Paired bootstrap over blocks of frames: how far a difference in mIoU could be luck of the draw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sage_edge.quality import iou_per_class

DRAWS = 10_000


def by_block(confusions: NDArray[np.int64], blocks: Sequence[str]) -> NDArray[np.int64]:
    """Sum the confusions of every block: [N, classes, classes], N names -> [blocks, classes, classes].

    Neighbours in a video are no independent draws; their blocks are, nearly.
    """
    _, member = np.unique(blocks, return_inverse=True)
    summed = np.zeros((member.max() + 1, *confusions.shape[1:]), confusions.dtype)
    np.add.at(summed, member, confusions)
    return summed


def miou_interval(
    confusions: NDArray[np.int64], rival: NDArray[np.int64] | None = None, seed: int = 0
) -> tuple[float, float]:
    """Estimate the 95 % interval of an mIoU, or of its lead over a rival on the same frames.

    Args:
        confusions: int64 [N, classes, classes], one per frame, or per block of frames; or
            [seeds, N, classes, classes], the same frames labelled by the nets of several seeds, whose mIoUs
            are averaged.
        rival: The same for another method; its mIoU is subtracted draw by draw.
        seed: Of the draws.

    Returns:
        The 2.5 % and 97.5 % quantiles over 10,000 draws of N with replacement.
    """
    frames = confusions.shape[-3]
    counts = np.random.default_rng(seed).multinomial(frames, np.full(frames, 1 / frames), size=DRAWS)
    drawn = _mean_ious(counts, confusions)
    if rival is not None:
        drawn -= _mean_ious(counts, rival)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _mean_ious(counts: NDArray[np.int64], confusions: NDArray[np.int64]) -> NDArray[np.float64]:
    seeds = confusions.reshape(-1, *confusions.shape[-3:])
    drawn = [np.nanmean(iou_per_class(np.tensordot(counts, of_seed, axes=1)), axis=-1) for of_seed in seeds]
    means: NDArray[np.float64] = np.mean(drawn, axis=0)
    return means
