"""How good an answer is, held against labels: of a segmentation, and of a span of text."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sage_edge.errors import ParameterError, ShapeError


def confusion(
    labels: NDArray[np.integer], predictions: NDArray[np.integer], classes: int, void: int | None = None
) -> NDArray[np.int64]:
    """Count the pixels of every (true class, predicted class).

    Args:
        labels: Integers of any shape, in [0, classes) or ``void``.
        predictions: Integers of the same shape, in [0, classes).
        classes: How many classes there are.
        void: The label of pixels that do not count.

    Returns:
        int64 [classes, classes], rows are true classes.

    Raises:
        ShapeError: the shapes differ.
        ParameterError: a counted label or prediction is no class.
    """
    if labels.shape != predictions.shape:
        raise ShapeError(f"predictions: expected {list(labels.shape)}, got {list(predictions.shape)}")
    counts = np.ones(labels.shape, bool) if void is None else labels != void
    true, predicted = labels[counts].astype(np.int64), predictions[counts].astype(np.int64)
    for name, values in (("labels", true), ("predictions", predicted)):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            got = f"{values.min()}..{values.max()}"
            raise ParameterError(f"{name}: expected classes in 0..{classes - 1}, got {got}")
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def iou_per_class(confusion: ArrayLike) -> NDArray[np.float64]:
    """Divide intersection by union for every class.

    Args:
        confusion: [..., classes, classes], rows are true classes; leading axes are kept.

    Returns:
        float64 [..., classes] in [0, 1]; NaN where a class is neither there nor predicted.
    """
    counts = np.asarray(confusion, np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    union = counts.sum(axis=-1) + counts.sum(axis=-2) - hits
    ious: NDArray[np.float64] = np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)
    return ious


def mean_iou(confusion: ArrayLike) -> float:
    """Average the IoU over the classes that are there or predicted; NaN when nothing was counted.

    Args:
        confusion: [classes, classes], rows are true classes.
    """
    ious = iou_per_class(confusion)
    present = ious[~np.isnan(ious)]
    return float(present.mean()) if present.size else float("nan")


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, ties shared: float64 [N]."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: NDArray[np.int64] = np.cumsum(counts)
    shared: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return shared


def auroc(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """The chance that a positive scores above a negative, a tie counting half; None without both.

    Args:
        score: float64 [N].
        positive: bool [N].
    """
    hits, misses = int(positive.sum()), int((~positive).sum())
    if hits == 0 or misses == 0:
        return None
    return float((ranks(score)[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def aurc(confidence: NDArray[np.float64], risk: NDArray[np.float64]) -> float:
    """The mean risk of the most confident n, averaged over n = 1 .. N: the area under risk over coverage.

    Args:
        confidence: float64 [N].
        risk: float64 [N], such as the share of wrong pixels.
    """
    ordered = risk[np.argsort(-confidence, kind="stable")]
    return float((np.cumsum(ordered) / np.arange(1, len(ordered) + 1)).mean())


def calibration_error(claimed: NDArray[np.float64], true: NDArray[np.float64], bins: int = 10) -> float:
    """The mean gap between claim and truth over bins of equally many claims.

    Args:
        claimed: float64 [N].
        true: float64 [N], what each claim is about.
        bins: How many; each takes its share of the claims in ascending order.
    """
    order = np.argsort(claimed, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    gaps = [abs(claimed[part].mean() - true[part].mean()) * part.size for part in parts]
    return float(sum(gaps) / len(order))


def answer_words(text: str) -> list[str]:
    """The words by which answers are compared: lower case, without punctuation and articles."""
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return [word for word in re.split(r"\s+", bare) if word and word not in ("a", "an", "the")]


def exact_match(answer: str | None, right: Iterable[str]) -> float:
    """1 where an answer has the words of one of the right ones, else 0; None is no answer."""
    return float(answer is not None and any(answer_words(answer) == answer_words(one) for one in right))


def token_f1(answer: str | None, right: Iterable[str]) -> float:
    """The best overlap of an answer's words with those of a right one, in [0, 1]; None is no answer."""
    if answer is None:
        return 0.0
    return max((_overlap(answer_words(answer), answer_words(one)) for one in right), default=0.0)


def _overlap(given: list[str], right: list[str]) -> float:
    if not given or not right:
        return float(given == right)
    shared = sum((Counter(given) & Counter(right)).values())
    return 2 * shared / (len(given) + len(right))
