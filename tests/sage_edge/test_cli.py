"""The command: what it writes, what it says, and how it ends."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import sage_edge
from tests.command_line import FRAMES, QUICK, assert_said, run

# refine


def test_refine_writes_a_mask_and_an_overlay_for_each_image(tmp_path, capsys):
    images = sorted(FRAMES.glob("*.webp"))
    out = tmp_path / "new" / "out"
    code, said, errors = run(
        capsys, "refine", "vision", *images, "--out", out, "--max-steps", 1, "--eps", 0, *QUICK
    )
    assert (code, errors.strip()) == (0, "")
    assert len(images) > 1
    for image in images:
        frame = Image.open(image)
        mask = Image.open(out / f"{image.stem}.mask.png")
        overlay = Image.open(out / f"{image.stem}.overlay.png")
        assert (mask.mode, mask.size) == ("P", frame.size)
        assert set(np.unique(np.asarray(mask))) <= {0, 1, 2}
        assert (overlay.mode, overlay.size) == ("RGB", frame.size)
        background = np.asarray(mask) == 0
        np.testing.assert_array_equal(
            np.asarray(overlay)[background], np.asarray(frame.convert("RGB"))[background]
        )
        [line] = [line for line in said.splitlines() if line.startswith(f"{image}: ")]
        assert "1 steps, halt max_steps" in line


def test_bad_files_are_named_and_the_others_are_done(tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    bad = [tmp_path / "text.jpg", tmp_path / "missing.png", tmp_path / "folder.png"]
    good = FRAMES / "nuclei.webp"
    out = tmp_path / "out"
    code, said, errors = run(
        capsys, "refine", "vision", bad[0], bad[1], good, bad[2], "--out", out, "--max-steps", 0, *QUICK
    )
    assert code == 1
    assert sorted(path.name for path in out.iterdir()) == ["nuclei.mask.png", "nuclei.overlay.png"]
    assert f"{good}: 0 steps" in said
    lines = [line for line in errors.splitlines() if line.startswith("sage-edge: ")]
    assert [line for line in errors.splitlines() if line.strip()] == lines
    for path, line, words in zip(
        bad, lines, ["JPEG, PNG or WebP", "No such file", "Is a directory"], strict=True
    ):
        assert line.startswith(f"sage-edge: {path}: ")
        assert words in line


def test_a_budget_that_no_frame_can_meet_is_said_for_each_frame(tmp_path, capsys):
    code, _, errors = run(
        capsys, "refine", "vision", FRAMES / "nuclei.webp", "--out", tmp_path, "--deadline-ms", 0.001, *QUICK
    )
    assert code == 1
    assert_said(errors, "nuclei.webp: ", "deadline")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--deadline-ms", "0"], ["deadline_ms: expected more than 0", "got 0.0"]),
        (["--deadline-ms", "nan"], ["deadline_ms: expected", "got nan"]),
        (["--max-steps", "-1"], ["max_steps: expected 0 or more, got -1"]),
        (["--max-steps", "1000000"], ["max_steps: expected at most", "got 1000000"]),
        (["--quality", "2"], ["quality: expected", "got 2.0"]),
    ],
)
def test_a_bad_budget_is_refused_by_name(tmp_path, capsys, flags, words):
    code, _, errors = run(
        capsys, "refine", "vision", FRAMES / "nuclei.webp", "--out", tmp_path, *flags, *QUICK
    )
    assert code == 1
    assert_said(errors, *words)


def test_two_images_of_one_name_are_refused_before_one_overwrites_the_other(tmp_path, capsys):
    code, _, errors = run(capsys, "refine", "vision", "a/frame.png", "b/frame.jpg", "--out", tmp_path / "out")
    assert code == 1
    assert_said(errors, "frame.mask.png", "--out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    code, _, errors = run(
        capsys, "refine", "vision", FRAMES / "nuclei.webp", "--out", tmp_path / "out", *QUICK
    )
    assert code == 1
    assert_said(errors, str(tmp_path / "out"), "File exists")


# Settings and usage


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--slots", "0"], "slots: expected at least 1, got 0"),
        (["doctor", "--drain-s", "inf"], "drain_s: expected a finite number, got inf"),
        (["refine", "vision", "x.png", "--vision-model", "nowhere"], "vision_model: expected one of"),
        (["refine", "vision", "x.png", "--config", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["doctor", "--plugins", "audio", "--threads", "many"], "threads: expected int"),
        (
            ["evaluate", "vision", "--data", "nowhere", "--split", "val"],
            "--data: expected images in nowhere/val",
        ),
    ],
)
def test_what_cannot_start_is_said_in_one_line_with_exit_code_2(
    tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    code, out, errors = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert_said(errors, words)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["refine", "vision"],
        ["refine", "audio", "x.png"],
        ["telemetry"],
        ["engines"],
        ["engines", "sell"],
        ["telemetry", "tail", "-n", "-1", "x"],
        ["telemetry", "tail", "-n", "many", "x"],
        ["evaluate", "vision", "--split", "val"],
        ["serve", "--no-such-flag"],
    ],
)
def test_a_usage_error_shows_the_usage_with_exit_code_2(capsys, arguments):
    code, out, errors = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert errors.startswith("usage: sage-edge")
    assert "error: " in errors.splitlines()[-1]


def test_the_version_is_that_of_the_package(capsys):
    assert run(capsys, "--version") == (0, f"{sage_edge.__version__}\n", "")


def test_every_setting_is_a_flag_of_serve(capsys):
    from dataclasses import fields

    code, out, _ = run(capsys, "serve", "--help")
    assert code == 0
    for setting in fields(sage_edge.Settings):
        assert f"--{setting.name.replace('_', '-')} " in out
