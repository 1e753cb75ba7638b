"""The command: what it writes, what it says, and how it ends."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import sage_edge
from sage_edge.config import setting_fields
from tests.command_line import FRAMES, QUICK, assert_said, run
from tests.kinds import LettersPlugin, NumbersPlugin, PicturePlugin

QP = {"kind": "qp", "P": [[2.0, 0.0], [0.0, 2.0]], "q": [-2.0, -5.0], "A": [[1.0, 1.0]], "u": [1.0]}

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


def test_refine_tells_a_damaged_picture_and_the_others_not(tmp_path, capsys):
    Image.open(FRAMES / "nuclei.webp").convert("RGB").save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "holed.jpg").write_bytes(whole[: len(whole) // 3] + whole[len(whole) // 2 :])
    files = [tmp_path / "holed.jpg", tmp_path / "whole.jpg"]
    code, said, _ = run(capsys, "refine", "vision", *files, "--out", tmp_path, "--max-steps", 0, *QUICK)
    assert code == 0
    holed, others = sorted(said.splitlines())
    assert "trust 0.00" in holed and "damaged: Corrupt JPEG data" in holed
    assert "damaged:" not in others


def test_refine_writes_the_document_that_http_has_without_its_pictures(tmp_path, capsys):
    image = FRAMES / "nuclei.webp"
    assert run(capsys, "refine", "vision", image, "--out", tmp_path, "--max-steps", 1, *QUICK)[0] == 0
    document = json.loads((tmp_path / "nuclei.json").read_text())
    assert (document["plugin"], document["steps"], document["halt_reason"]) == ("vision", 1, "max_steps")
    assert document["answer"]["shape"] == [256, 256]
    assert sorted(document["answer"]) == ["classes", "dtype", "shape"]


@pytest.mark.parametrize("suffix", [".json", ".npz", ""])
def test_refine_solves_a_problem_from_any_file_that_holds_one(tmp_path, capsys, suffix):
    file = tmp_path / f"qp{suffix}"
    if suffix == ".npz":
        np.savez(file, **QP)
    else:
        file.write_text(json.dumps(QP))
    code, said, errors = run(capsys, "refine", "control", file, "--out", tmp_path / "out")
    assert (code, errors) == (0, "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["qp.json"]
    answer = json.loads((tmp_path / "out" / "qp.json").read_text())["answer"]
    np.testing.assert_allclose(answer["x"], [-0.25, 1.25], atol=2e-3)
    assert "base64" not in answer
    assert "trust none" in said


@pytest.fixture
def installed(monkeypatch):
    """Plugins of other kinds, as other packages would register them."""
    plugins = {"numbers": NumbersPlugin, "letters": LettersPlugin, "picture": PicturePlugin}
    entries = [SimpleNamespace(name=name, load=lambda cls=cls: cls) for name, cls in plugins.items()]
    monkeypatch.setattr("sage_edge.plugins.entry_points", lambda group: entries)


def test_refine_reads_the_kind_of_input_that_an_installed_plugin_takes(tmp_path, capsys, installed):
    (tmp_path / "six.csv").write_text("4,4,4,4,4,4")
    (tmp_path / "letters.md").write_text("abcdef")
    np.save(tmp_path / "colours.npy", np.array([0, 10, 20, 30, 40, 50], np.float32))
    for plugin, name in (("numbers", "six.csv"), ("letters", "letters.md"), ("picture", "colours.npy")):
        code, _, errors = run(
            capsys, "refine", plugin, tmp_path / name, "--out", tmp_path / "out", "--branches", 2
        )
        assert (code, errors) == (0, "")
    names = ["colours.answer.png", "colours.json", "letters.json", "six.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    with Image.open(tmp_path / "out" / "colours.answer.png") as picture:
        assert picture.size == (2, 1)
    assert json.loads((tmp_path / "out" / "six.json").read_text())["branches"] == 2


def test_a_file_that_is_none_of_the_kind_is_said(tmp_path, capsys, installed):
    (tmp_path / "a.md").write_bytes(b"\xe9")
    (tmp_path / "b.md").write_bytes(b"")
    code, _, errors = run(
        capsys, "refine", "letters", tmp_path / "a.md", tmp_path / "b.md", "--out", tmp_path / "out"
    )
    assert code == 1
    first, second = [line for line in errors.splitlines() if line.startswith("sage-edge: ")]
    assert "a.md: text: expected UTF-8" in first
    assert "b.md: expected a text, got an empty file" in second


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
    written = ["nuclei.json", "nuclei.mask.png", "nuclei.overlay.png"]
    assert sorted(path.name for path in out.iterdir()) == written
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
    assert_said(errors, "frame.json", "--out")
    assert not (tmp_path / "out").exists()


def test_an_input_is_not_overwritten_by_its_answer(tmp_path, capsys):
    problem = tmp_path / "qp.json"
    problem.write_text(json.dumps(QP))
    code, _, errors = run(capsys, "refine", "control", problem, "--out", tmp_path / "x" / "..")
    assert code == 1
    assert_said(errors, "qp.json would be overwritten by its answer", "--out")
    assert json.loads(problem.read_text()) == QP


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
        (
            ["refine", "vision", "x.png", "--set", "vision.model=nowhere"],
            "plugins.vision: model: expected",
        ),
        (["refine", "vision", "x.png", "--config", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (
            ["refine", "audio", "x.wav"],
            "expected some of control, language, vision, or module:Class, got 'audio'",
        ),
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
    code, out, _ = run(capsys, "serve", "--help")
    assert code == 0
    for setting in setting_fields():
        assert f"--{setting.name.replace('_', '-')} " in out


def test_a_question_is_asked_of_files_and_its_answer_is_told(tmp_path, capsys):
    page = tmp_path / "manual.md"
    page.write_text("# Größen\n\nThe camera weighs eighty grams. The arm is blue.\n", encoding="utf-8")
    question = 'How much does the "camera" weigh?'
    out = tmp_path / "out"
    code, said, errors = run(
        capsys,
        "refine",
        "language",
        page,
        "--question",
        question,
        "--out",
        out,
        *QUICK,
        "--log-level",
        "error",
    )
    assert code == 0, errors
    answer = json.loads((out / "manual.json").read_text(encoding="utf-8"))["answer"]
    assert "eighty" in answer["text"]
    assert json.dumps(answer["text"]) in said
    assert page.read_text(encoding="utf-8")[answer["start"] : answer["end"]] == answer["text"]


def test_a_question_for_a_plugin_that_answers_none_is_refused(tmp_path, capsys):
    code, _, errors = run(capsys, "refine", "control", tmp_path / "a.json", "--question", "2024", *QUICK)
    assert code == 2
    assert_said(errors, "plugins.control: question: unknown to this plugin")
