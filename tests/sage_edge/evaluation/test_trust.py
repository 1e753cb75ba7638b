"""Whether an energy tells where an answer fails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge import HRM, Budget, Settings
from sage_edge.evaluation.labelled import LabelledFrame
from sage_edge.evaluation.trust import TrustProbe, confidence_maps, tile_means


@pytest.fixture(scope="module")
def hrm(vision):
    opened = HRM(Settings(slots=1, threads=1, telemetry_dir=""), {"vision": vision})
    opened.start()
    yield opened
    opened.close()


def refined(hrm, frame):
    return hrm.submit("vision", hrm.prepare("vision", frame), Budget()).future.result(30)


def test_answers_taken_for_labels_fail_nowhere(hrm, vision, nuclei_frame):
    result = refined(hrm, nuclei_frame)
    probe = TrustProbe(vision, void=None)
    probe.add(LabelledFrame("own", nuclei_frame, result.answer.array), result)
    report = probe.report()
    assert report["tiles"]["units"] == 64
    assert report["tiles"]["failed"] == 0
    assert report["tiles"]["energy"]["AURC"] == pytest.approx(0, abs=1e-4)  # ties of two classes
    assert report["tiles"]["energy"]["AUROC"] is None
    assert report["calibration_error"]["trust_of_frame_mIoU"] == pytest.approx(1 - result.trust, abs=1e-3)


def test_tiles_with_wrong_labels_fail_and_void_ones_are_left_out(hrm, vision, nuclei_frame):
    result = refined(hrm, nuclei_frame)
    labels = result.answer.array.astype(np.uint8)
    labels[:32, :64] = (labels[:32, :64] + 1) % 3
    labels[-32:] = 255
    probe = TrustProbe(vision, void=255)
    probe.add(LabelledFrame("two wrong", nuclei_frame, labels), result)
    tiles = probe.report()["tiles"]
    assert (tiles["units"], tiles["failed"]) == (56, 2)
    assert 0 <= tiles["energy"]["AUROC"] <= 1


def test_a_frame_that_is_void_throughout_does_not_count(hrm, vision, nuclei_frame):
    probe = TrustProbe(vision, void=255)
    result = refined(hrm, nuclei_frame)
    probe.add(LabelledFrame("void", nuclei_frame, np.full((256, 256), 255, np.uint8)), result)
    probe.add(LabelledFrame("own", nuclei_frame, result.answer.array), result)
    assert probe.report()["frames"]["units"] == 1


def test_confidences_are_largest_where_one_class_is_certain():
    certain, torn = np.array([1.0, 0.0, 0.0]), np.array([0.4, 0.4, 0.2])
    maps = confidence_maps(np.stack([certain, torn], axis=1)[:, None])
    assert maps["max_softmax"][0].tolist() == [1.0, 0.4]
    assert maps["margin"][0] == pytest.approx([1.0, 0.0])
    assert maps["entropy"][0] == pytest.approx([0.0, 0.8 * np.log(0.4) + 0.2 * np.log(0.2)])


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_tiles_mean_is_that_of_its_counted_pixels(rows, columns, side, seed):
    rng = np.random.default_rng(seed)
    values = rng.random((rows * side, columns * side))
    counts = rng.random(values.shape) < 0.7
    means = tile_means(values, counts, rows * columns)
    for tile, mean in enumerate(means):
        top, left = side * (tile // columns), side * (tile % columns)
        window = np.s_[top : top + side, left : left + side]
        picked = values[window][counts[window]]
        assert mean == pytest.approx(picked.mean()) if picked.size else np.isnan(mean)
