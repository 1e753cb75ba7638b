"""How good a model is on labelled frames, and what its early stop saves."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sage_edge import HRM, Settings
from sage_edge.errors import ConfigError, ParameterError
from sage_edge.evaluation import evaluate, find_labelled, time_slots
from sage_edge.frames import decode_image
from sage_edge.quality import confusion, mean_iou
from tests.quadratic import QuadraticPlugin


@pytest.fixture(scope="module")
def hrm(vision):
    opened = HRM(Settings(slots=2, threads=1, telemetry_dir=""), {"vision": vision})
    opened.start()
    yield opened
    opened.close()


def write(folder, name, frame, labels):
    for sub in ("val", "valannot"):
        (folder / sub).mkdir(exist_ok=True)
    Image.fromarray(frame).save(folder / "val" / f"{name}.png")
    Image.fromarray(labels).save(folder / "valannot" / f"{name}.png")


@pytest.fixture
def folder(tmp_path, hrm, nuclei_frame):
    """Three frames, labelled with the model's own initial answers but for the last, which is off by one."""
    rng = np.random.default_rng(0)
    for number in range(3):
        frame = np.roll(nuclei_frame, 40 * number, axis=1) if number else nuclei_frame
        frame = np.clip(frame.astype(int) + rng.integers(0, 5, frame.shape), 0, 255).astype(np.uint8)
        labels = answer(hrm, frame)
        write(tmp_path, f"frame{number}", frame, (labels + (number == 2)) % 3)
    return tmp_path


def answer(hrm, frame):
    from sage_edge import Budget

    ticket = hrm.submit("vision", hrm.prepare("vision", frame), Budget(max_steps=0))
    return ticket.future.result(30).answer.array


def test_a_perfect_answer_scores_1_and_a_wrong_one_0(hrm, folder):
    (folder / "val" / "frame2.png").unlink()
    report = evaluate(hrm, find_labelled(folder, "val"))
    assert report["runs"]["steps_0"]["mIoU"] > 0.999  # ties of two classes may fall either way in a batch
    write(folder, "frame0", *wrong(folder / "val" / "frame0.png", hrm))
    write(folder, "frame1", *wrong(folder / "val" / "frame1.png", hrm))
    assert evaluate(hrm, find_labelled(folder, "val"))["runs"]["steps_0"]["mIoU"] < 0.001


def wrong(path, hrm):
    frame = decode_image(path.read_bytes(), 1 << 20)
    return frame, (answer(hrm, frame) + 1) % 3


def test_the_report_adds_up(hrm, folder, vision):
    report = evaluate(hrm, find_labelled(folder, "val"))
    last = vision.halting.max_steps
    macs = report["macs"]
    assert list(report["runs"]) == [*(f"steps_{k}" for k in range(last + 1)), "default"]
    assert report["frames"] == 3
    for k in range(last + 1):
        run = report["runs"][f"steps_{k}"]
        assert run["mean_steps"] == k
        assert run["mean_macs"] == macs["encoder"] + k * macs["step"] + macs["decoder"]
    default, full = report["runs"]["default"], report["runs"][f"steps_{last}"]
    assert 0 < default["mean_steps"] <= last
    assert report["compute_saved"] == pytest.approx(full["mean_macs"] / default["mean_macs"])
    assert report["mIoU_lost"] == pytest.approx(full["mIoU"] - default["mIoU"])
    for run in report["runs"].values():
        present = [iou for iou in run["IoU"].values() if iou is not None]
        assert run["mIoU"] == pytest.approx(np.mean(present))
        assert 0 <= run["trust"]["mean"] <= 1
        assert run["trust"]["mean_absolute_error"] <= 1


def test_drives_are_told_apart_by_the_letters_that_the_model_names(hrm, folder, vision, monkeypatch):
    assert set(evaluate(hrm, find_labelled(folder, "val"))["runs"]["default"]["mIoU_by_drive"]) == {""}
    monkeypatch.setattr(vision, "model", replace(vision.model, drive_letters=6))
    runs = evaluate(hrm, find_labelled(folder, "val"))["runs"]
    by_drive = runs["steps_0"]["mIoU_by_drive"]
    assert list(by_drive) == ["frame0", "frame1", "frame2"]
    assert by_drive["frame0"] > 0.999
    assert by_drive["frame2"] < 0.001


def test_the_model_says_which_label_is_void(hrm, folder, vision, monkeypatch):
    monkeypatch.setattr(vision, "model", replace(vision.model, void=2))
    report = evaluate(hrm, find_labelled(folder, "val"))["runs"]["steps_0"]
    assert report == evaluate(hrm, find_labelled(folder, "val"), void=2)["runs"]["steps_0"] | {
        "refine_ms_median": report["refine_ms_median"]
    }


def test_both_numbers_of_slots_are_timed(folder):
    timed = time_slots(Settings(threads=1, telemetry_dir=""), find_labelled(folder, "val"))
    assert list(timed) == ["slots_1", "slots_8"]
    for times in timed.values():
        assert times["time_saved"] == pytest.approx(times["all_steps_ms"] / times["default_ms"])
        assert times["default_ms"] > 0


def test_void_pixels_do_not_count(hrm, folder):
    before = evaluate(hrm, find_labelled(folder, "val"))["runs"]["steps_0"]["mIoU"]
    path = folder / "valannot" / "frame2.png"
    with Image.open(path) as image:
        labels = np.asarray(image)
    Image.fromarray(np.full_like(labels, 255)).save(path)
    after = evaluate(hrm, find_labelled(folder, "val"), void=255)["runs"]["steps_0"]
    assert before < 0.9
    assert after["mIoU"] > 0.999  # the frame that was off is void now
    assert after["trust"]["frame_mIoU_mean"] > 0.999


def test_labels_that_are_void_throughout_are_refused(hrm, tmp_path, nuclei_frame):
    write(tmp_path, "frame", nuclei_frame, np.full((256, 256), 255, np.uint8))
    with pytest.raises(ParameterError, match="only --void 255"):
        evaluate(hrm, find_labelled(tmp_path, "val"), void=255)


def test_a_class_that_is_nowhere_has_no_iou(hrm, tmp_path):
    black = np.zeros((64, 64, 3), np.uint8)
    write(tmp_path, "black", black, answer(hrm, black) * 0)
    ious = evaluate(hrm, find_labelled(tmp_path, "val"))["runs"]["steps_0"]["IoU"]
    assert all(iou is None or math.isfinite(iou) for iou in ious.values())


def test_a_frame_without_labels_is_named(tmp_path, nuclei_frame):
    write(tmp_path, "frame", nuclei_frame, nuclei_frame[..., 0])
    (tmp_path / "valannot" / "frame.png").unlink()
    with pytest.raises(ConfigError, match=r"1 frames have no PNG in .*valannot, the first is frame"):
        find_labelled(tmp_path, "val")


def test_a_split_without_images_is_named(tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=r"expected images in .*val, found none"):
        find_labelled(tmp_path, "val")


def test_only_the_plugin_that_ships_can_be_evaluated(folder):
    other = HRM(Settings(telemetry_dir=""), {"vision": QuadraticPlugin()})
    with pytest.raises(ConfigError, match="expected the plugin that ships, got QuadraticPlugin"):
        evaluate(other, find_labelled(folder, "val"))


def test_on_real_labels_the_model_beats_calling_everything_background(hrm, data_folder):
    labelled = find_labelled(data_folder / "nuclei_dsb2018", "val")
    few = type(labelled)(labelled.images[::20], labelled.labels)
    report = evaluate(hrm, few)
    background = sum(confusion(frame.labels, np.zeros_like(frame.labels), 3) for frame in few)
    assert report["frames"] >= 4
    assert report["runs"]["default"]["mIoU"] > mean_iou(background) + 0.1
    assert report["mIoU_lost"] < 0.05
    assert report["compute_saved"] >= 1
