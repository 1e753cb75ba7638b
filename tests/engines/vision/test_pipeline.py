"""The commands of `make train-vision`, one after the other, on a small data set of a road that never was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs torch: pip install 'sage-edge[training]'")

pytestmark = pytest.mark.training

ROOT = Path(__file__).parents[3]
RECIPE = f"""
base = "{ROOT}/engines/vision/configs/camvid-quick.toml"
name = "tiny"
[data]
height_px = 80
width_px = 80
calibration_share = 0.3
head_share = 0.3
block_frames = 1
[net]
features = 8
refiner_widths = [8, 8]
tiles_per_step = 1
max_steps = 4
[augment]
crop_px = [80, 80]
[train]
batch = 4
iterations = 4
head_iterations = 2
refit_iterations = 3
glance_iterations = 1
"""


def paint(folder, drives, frames):
    """Sky above a road, each frame with a car elsewhere and a void row."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for part in (split, f"{split}annot"):
            (folder / part).mkdir(parents=True)
        for name in [f"{drive}_{number:03}" for drive in drives for number in range(frames)]:
            labels = np.where(np.arange(96)[:, None] < 48, 0, 3).repeat(96, axis=1).astype(np.uint8)
            top, left = rng.integers(40, 70, 2)
            labels[top : top + 20, left : left + 20] = 8
            labels[-4:] = 11
            light = np.array([200, 0, 0, 90, 0, 0, 0, 0, 40, 0, 0, 0])[labels]
            frame = np.clip(light[..., None] + rng.normal(0, 8, (96, 96, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(frame).save(folder / split / f"{name}.webp")
            Image.fromarray(labels).save(folder / f"{split}annot" / f"{name}.png")


def command(module, *arguments):
    """Run one command; what it wrote to the terminal."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model folder and where it came from, by the commands."""
    root = tmp_path_factory.mktemp("tiny")
    paint(root / "data", ("0001TP", "0006R0"), 8)
    (root / "tiny.toml").write_text(RECIPE)
    recipe = ("--config", root / "tiny.toml", "--data", root / "data")
    command("engines.vision.train", *recipe, "--out", root / "nets", "--threads", 1)
    head = ("--head-of", root / "nets" / "checkpoint.pt", "--out", root / "head", "--threads", 1)
    command("engines.vision.train", *recipe, *head)
    checkpoint = ("--checkpoint", root / "head" / "checkpoint.pt")
    command("engines.vision.export", "--config", root / "tiny.toml", *checkpoint, "--out", root / "models")
    command("engines.vision.calibrate", *recipe, "--models", root / "models")
    command("engines.vision.report", *recipe, "--models", root / "models", *checkpoint)
    return root, recipe, checkpoint


def test_the_commands_leave_a_model_that_says_what_it_is(trained):
    root, _, _ = trained
    manifest = json.loads((root / "models" / "manifest.json").read_text())
    assert manifest["state"]["shape"] == [45, 20, 20]
    assert (manifest["void"], manifest["drive_letters"], manifest["energy_terms"]) == (11, 6, 4)
    assert manifest["halting_chosen_by"]["mIoU_loss"] <= manifest["halting_chosen_by"]["target_mIoU_loss"]
    assert "non-commercial" in manifest["licence"]
    card = (root / "models" / "MODEL_CARD.md").read_text()
    assert card.startswith("# tiny 0.1.0")
    assert "Otsu" not in card
    assert "non-commercial" in card
    assert (root / "nets" / "losses.png").stat().st_size > 0


def test_a_refit_sees_all_frames_and_keeps_head_halt_and_trust(trained):
    root, recipe, checkpoint = trained
    refit = root / "refit"
    command("engines.vision.train", *recipe, "--refit-of", checkpoint[1], "--out", refit, "--threads", 1)
    before, after = (
        torch.load(path, weights_only=True)["average"] for path in (checkpoint[1], refit / "checkpoint.pt")
    )
    changed = {
        name.split(".")[1]
        for name in before
        if name.startswith("module.") and not torch.equal(before[name], after[name])
    }
    assert changed == {"glance", "first_guess", "refiner"}
    export = ("--checkpoint", refit / "checkpoint.pt", "--out", refit / "models")
    command("engines.vision.export", "--config", root / "tiny.toml", *export)
    chosen = ("--as-chosen-for", root / "models")
    command("engines.vision.calibrate", *recipe, "--models", refit / "models", *chosen)
    command("engines.vision.report", *recipe, "--models", refit / "models", *export[:2])
    earlier, later = (json.loads((path / "models" / "manifest.json").read_text()) for path in (root, refit))
    for name in ("E_scale", "halting", "halting_chosen_by", "trust", "streams"):
        assert later[name] == earlier[name]
    assert later["files"]["encoder.fp32.onnx"] != earlier["files"]["encoder.fp32.onnx"]
    assert "--refit-of" in later["command"]
    assert "refitted on all frames" in (refit / "models" / "MODEL_CARD.md").read_text()
    assert "refitted" not in (root / "models" / "MODEL_CARD.md").read_text()


def test_evaluate_takes_the_folder_and_knows_its_void_and_its_drives(trained):
    root, _, _ = trained
    out = root / "evaluated.json"
    arguments = ("evaluate", "vision", "--model", root / "models", "--data", root / "data", "--split", "val")
    command("sage_edge", *arguments, "--json", out, "--threads", 1)
    report = json.loads(out.read_text())
    assert set(report["runs"]["default"]["mIoU_by_drive"]) == {"0001TP", "0006R0"}
    assert set(report["macs"]) == {"encoder", "step", "energy", "decoder"}
    assert report["trust"]["tiles"]["units"] == 16 * 4
    assert report["compute_saved"] >= 1
    metrics = json.loads((root / "models" / "metrics.json").read_text())
    assert metrics["clean"]["frames"] == report["frames"] == 16


def test_a_stream_saves_steps_where_the_scene_stands_still(trained):
    root, _, _ = trained
    out = root / "streams.json"
    data = ("--data", root / "data", "--model", root / "models", "--clips", 1, "--json", out)
    command("benchmarks.vision.streams", *data)
    rows = json.loads(out.read_text())["results"]["rows"]
    assert set(rows) == {"sequence", *(f"pan {px} px" for px in (0, 1, 2, 4, 8))}
    for row in rows.values():
        assert row["compute_saved"] >= 1
        assert row["steps_carried"] <= row["steps_anew"]


def test_trust_is_held_against_an_ensemble_dropout_and_fits(trained):
    root, recipe, checkpoint = trained
    out = root / "trust.json"
    command("benchmarks.vision.trust", *recipe, "--checkpoints", checkpoint[1], checkpoint[1], "--json", out)
    results = json.loads(out.read_text())["results"]
    assert (results["frames"], results["seeds"]) == (16, 2)
    for among in ("tiles", "frames_by_mean"):
        rows = results[among]
        assert set(rows) > {"energy", "ensemble disagreement", "dropout entropy", "fit of softmax, energy"}
        assert all(0 <= row["AURC"] <= 1 for row in rows.values())
        for name in ("max_softmax", "entropy", "margin"):  # the ensemble is the same net twice
            assert rows[f"ensemble {name}"]["AURC"] == pytest.approx(rows[name]["AURC"], rel=0.01)


def test_the_ablation_adds_up(trained):
    root, recipe, checkpoint = trained
    out = root / "ablation.json"
    runs = ("--models", root / "models", root / "models", "--checkpoints", checkpoint[1], checkpoint[1])
    twin = ("--twin-config", root / "tiny.toml", "--twin-checkpoints", checkpoint[1], checkpoint[1])
    command("benchmarks.vision.ablation", *recipe, *runs, *twin, "--json", out)
    results = json.loads(out.read_text())["results"]
    assert results["a_last_minus_first"]["points"] == pytest.approx(
        100 * (results["mIoU"]["last"] - results["mIoU"]["first"])
    )
    assert results["a_last_minus_first"]["points_of_seeds"] == 2 * [results["a_last_minus_first"]["points"]]
    assert set(results["e_signals_minus_fixed"]) > {"energy", "gain", "oracle", "random", "change"}
    for among in ("of_each_frame", "of_all_frames"):
        by_share = results["tiles"][among].values()
        assert [row[0] for row in by_share] == pytest.approx(5 * [results["mIoU"]["glance"]], abs=0.002)
        assert [row[-1] for row in by_share] == pytest.approx(5 * [results["mIoU"]["last"]], abs=0.002)
    assert results["feed_forward"]["mIoU"] == pytest.approx(
        results["mIoU"]["glance"], abs=0.02
    )  # the same net
