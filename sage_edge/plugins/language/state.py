"""What a state says: a row for each candidate window, and the posterior over the spans that were found.

The columns of a row are MARK, 1 where the window was read; SCORE, that of its best span over that of no
answer; FIRST and LAST, the span's pieces as places in the reader's input; EVIDENCE, the logarithm of the
likelihood ratio that the score stands for; SHARE, the logarithm of the span's share of the reader's
softmax; two spare ones; and from MEANING on what the span means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sage_edge.irp.engine import Float32

MARK, SCORE, FIRST, LAST, EVIDENCE, SHARE, MEANING = 0, 1, 2, 3, 4, 5, 8
#: Evidence is bounded, so that no window is ever ruled out or in for good.
MOST_EVIDENCE = 12.0
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Span:
    """A span that some windows point at.

    Attributes:
        first, last: Its pieces in the text.
        share: Of the posterior.
        row: The window that points at it with most weight.
    """

    first: int
    last: int
    share: float
    row: int


def weights_of(z: Float32, prior: Float32, sharpness: float) -> tuple[Float64, Float64]:
    """The weights of the windows that were read and of their spans, 0 of the others: float64 [rows] each.

    A window's is its prior times its likelihood ratio; its span has its share of that.
    """
    read = z[:, MARK] > 0.5
    window = np.where(read, prior * np.exp(z[:, EVIDENCE].astype(np.float64)), 0.0)
    return window, window * np.exp(sharpness * z[:, SHARE].astype(np.float64))


@dataclass(frozen=True, slots=True)
class Posterior:
    """Where the answer may be, by what was read so far.

    Attributes:
        spans: Those that were found, the likeliest first.
        nowhere: The share of the text not answering.
        unread: The share of the windows that were not read.
        others: The share of other spans in the windows that were.
    """

    spans: tuple[Span, ...]
    nowhere: float
    unread: float
    others: float


def posterior_of(z: Float32, prior: Float32, place: Float32, nowhere: float, sharpness: float) -> Posterior:
    """Weigh what was found.

    Args:
        z: float32 [rows, columns], one state.
        prior: float32 [rows].
        place: float32 [rows], the piece of the text that stands at the beginning of each row's input.
        nowhere: The prior of the text not answering.
        sharpness: How much a span's share of the reader's softmax counts.
    """
    is_read = z[:, MARK] > 0.5
    windows, weights = weights_of(z, prior, sharpness)
    rest = max(1 - float(prior[is_read].sum(dtype=np.float64)), nowhere)
    total = windows.sum() + rest
    rows: dict[tuple[int, int], list[int]] = {}
    for row in np.flatnonzero(is_read).tolist():
        span = int(place[row]) + round(float(z[row, FIRST])), int(place[row]) + round(float(z[row, LAST]))
        rows.setdefault(span, []).append(row)
    found = [
        Span(*span, float(weights[own].sum() / total), max(own, key=lambda row: weights[row]))
        for span, own in rows.items()
    ]
    ranked = tuple(sorted(found, key=lambda span: -span.share))
    others = float((windows - weights).sum() / total)
    return Posterior(ranked, nowhere / total, (rest - nowhere) / total, others)


def meaning_of(z: Float32, prior: Float32, sharpness: float) -> Float32:
    """The meaning latent: the mean of the spans' meanings, weighed by their rows, of length 1.

    It is zero before anything was read, and the same in whatever order the rows were read.
    """
    _, weights = weights_of(z, prior, sharpness)
    mean = weights @ z[:, MEANING:]
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)
