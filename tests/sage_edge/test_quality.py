from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sage_edge.errors import ParameterError, ShapeError
from sage_edge.quality import aurc, auroc, calibration_error, confusion, iou_per_class, mean_iou

CLASSES = 4
VOID = 11
some_classes = arrays(np.uint8, (5, 7), elements=st.integers(0, CLASSES - 1))


def ious_by_sets(labels, predictions):
    """The definition, read aloud: pixels in both over pixels in either."""
    ious = []
    for name in range(CLASSES):
        true = {i for i, label in enumerate(labels.flat) if label == name}
        found = {i for i, label in enumerate(predictions.flat) if label == name}
        ious.append(len(true & found) / len(true | found) if true | found else math.nan)
    return ious


@given(some_classes, some_classes)
def test_iou_is_intersection_over_union_of_pixel_sets(labels, predictions):
    ious = iou_per_class(confusion(labels, predictions, CLASSES))
    np.testing.assert_allclose(ious, ious_by_sets(labels, predictions), rtol=1e-12)


@given(some_classes, some_classes)
def test_every_pixel_is_counted_once(labels, predictions):
    counts = confusion(labels, predictions, CLASSES)
    assert counts.dtype == np.int64
    assert counts.sum() == labels.size
    assert counts.sum(axis=1).tolist() == np.bincount(labels.ravel(), minlength=CLASSES).tolist()


@given(some_classes, some_classes, st.integers(1, 34))
def test_confusions_of_parts_add_up_to_that_of_the_whole(labels, predictions, cut):
    parts = [
        confusion(labels.ravel()[part], predictions.ravel()[part], CLASSES)
        for part in (slice(cut), slice(cut, None))
    ]
    np.testing.assert_array_equal(sum(parts), confusion(labels, predictions, CLASSES))


@given(some_classes, some_classes)
def test_void_pixels_do_not_count_whatever_was_predicted(labels, predictions):
    labels[0], other = VOID, predictions.copy()
    other[0] = (other[0] + 1) % CLASSES
    np.testing.assert_array_equal(
        confusion(labels, predictions, CLASSES, void=VOID), confusion(labels, other, CLASSES, void=VOID)
    )


def test_a_class_that_is_nowhere_does_not_enter_the_mean():
    assert mean_iou(np.diag([3, 0, 5])) == 1.0


def test_mean_iou_of_nothing_is_nan():
    assert math.isnan(mean_iou(np.zeros((3, 3), np.int64)))


def test_iou_keeps_leading_axes():
    stack = np.array([[[1, 1], [0, 2]], [[4, 0], [4, 0]]])
    np.testing.assert_allclose(iou_per_class(stack), [[1 / 2, 2 / 3], [1 / 2, 0.0]])


def test_shapes_that_differ_are_refused():
    with pytest.raises(ShapeError, match=r"expected \[2, 3\], got \[3, 2\]"):
        confusion(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)


@pytest.mark.parametrize("which", ["labels", "predictions"])
@pytest.mark.parametrize("value", [-1, 2])
def test_a_value_that_is_no_class_is_refused_by_name(which, value):
    arguments = {"labels": np.zeros(3, np.int16), "predictions": np.zeros(3, np.int16)}
    arguments[which][1] = value
    with pytest.raises(ParameterError, match=f"{which}: expected classes in 0..1"):
        confusion(**arguments, classes=2)


scores = st.lists(st.tuples(st.integers(0, 5).map(float), st.booleans()), min_size=1, max_size=12)


@given(scores)
def test_auroc_is_the_share_of_pairs_in_order(pairs):
    score, positive = (np.array(values) for values in zip(*pairs, strict=True))
    duels = [(s > t) + (s == t) / 2 for s in score[positive] for t in score[~positive]]
    expected = pytest.approx(np.mean(duels)) if duels else None
    assert auroc(score, positive.astype(bool)) == expected


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=9))
def test_aurc_is_the_mean_risk_of_every_coverage(pairs):
    confidence, risk = (np.array(values) for values in zip(*pairs, strict=True))
    best_first = [risk[i] for i in sorted(range(len(risk)), key=lambda i: -confidence[i])]
    expected = np.mean([np.mean(best_first[: n + 1]) for n in range(len(risk))])
    assert aurc(confidence, risk) == pytest.approx(expected)


def test_no_order_of_the_risks_has_a_smaller_aurc_than_their_own():
    risk = np.random.default_rng(0).random(50)
    assert aurc(-risk, risk) < aurc(np.random.default_rng(1).random(50), risk) < aurc(risk, risk)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 12), st.floats(-0.3, 0.3))
def test_a_claim_that_is_always_off_by_so_much_has_that_calibration_error(claims, bins, off):
    claimed = np.array(claims)
    assert calibration_error(claimed, claimed + off, bins) == pytest.approx(abs(off))


def test_bins_weigh_as_much_as_what_is_in_them():
    claimed, true = np.array([0.1, 0.2, 0.9]), np.array([0.1, 0.2, 0.6])
    assert calibration_error(claimed, true, bins=2) == pytest.approx(0.3 / 3)
