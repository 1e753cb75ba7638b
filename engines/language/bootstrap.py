"""Paired bootstrap over articles: how far a difference of means could be luck of the draw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000


def interval(values: NDArray[np.float64], articles: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """Estimate the 95 % interval of a mean, or of a mean difference, over questions.

    Args:
        values: float64 [N].
        articles: Of each question; they are drawn whole, since questions of one are no independent draws.
        seed: Of the draws.
    """
    _, member = np.unique(articles, return_inverse=True)
    count = member.max() + 1
    sums, sizes = (np.bincount(member, weights, count) for weights in (values, None))
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    low, high = np.quantile((drawn @ sums) / (drawn @ sizes), [0.025, 0.975])
    return float(low), float(high)
