"""The command: what it writes, what it says, and how it ends."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sage_edge
from sage_edge.cli import main
from tests.sage_edge.telemetry.logs import write_log

FRAMES = Path(__file__).parents[2] / "demos" / "frames"
GOLDEN = Path(__file__).parents[1] / "golden" / "v1" / "run_of_3_steps.jsonl"
QUICK = ["--threads", "1", "--slots", "2"]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    import os

    for name in [name for name in os.environ if name.startswith("SAGE_")]:
        monkeypatch.delenv(name)


def run(capsys, *arguments):
    """Exit code, stdout and stderr without progress bars."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as exc:  # argparse
        code = exc.code
    out, err = capsys.readouterr()
    return code, out, "\n".join(line for line in err.splitlines() if "frame/s" not in line)


def assert_said(text, *words):
    """One line, and no traceback."""
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    assert lines[0].startswith("sage-edge: ")
    for word in words:
        assert word in lines[0]


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


# telemetry


def test_tail_prints_the_last_records_as_they_stand(capsys):
    lines = GOLDEN.read_text().splitlines()
    assert run(capsys, "telemetry", "tail", "-n", 2, GOLDEN) == (0, "\n".join(lines[-2:]) + "\n", "")
    assert run(capsys, "telemetry", "tail", GOLDEN) == (0, GOLDEN.read_text(), "")
    assert run(capsys, "telemetry", "tail", "-n", 0, GOLDEN) == (0, "", "")


def test_tail_prints_a_file_that_is_no_text_rather_than_fail(tmp_path, capsys):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\n")
    assert run(capsys, "telemetry", "tail", tmp_path / "binary") == (0, "\ufffd\ufffd\n", "")


def test_validate_counts_the_records_of_a_sound_file(capsys):
    count = len(GOLDEN.read_text().splitlines())
    assert run(capsys, "telemetry", "validate", GOLDEN) == (0, f"{count} records, 0 invalid\n", "")


def test_validate_names_the_line_and_the_field_of_what_is_wrong(tmp_path, capsys):
    lines = GOLDEN.read_text().splitlines()
    spoilt = json.loads(lines[1])
    spoilt["E"] = "high"
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join([lines[0], json.dumps(spoilt), "{", lines[2].replace("null", "NaN", 1)]) + "\n")
    code, out, errors = run(capsys, "telemetry", "validate", file)
    assert (code, errors) == (1, "")
    assert f"{file}:2: $.E: " in out
    assert f"{file}:3: not JSON" in out
    assert f"{file}:4: " in out
    assert out.endswith("4 records, 3 invalid\n")


@pytest.mark.parametrize("command", ["tail", "validate"])
@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_telemetry_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, capsys, command, name):
    monkeypatch.chdir(tmp_path)
    code, out, errors = run(capsys, "telemetry", command, name)
    assert (code, out) == (1, "")
    assert_said(errors, f"{name}: ", "directory")


# audit


def test_audit_verify_prints_a_table_and_ends_with_0_when_all_is_sound(tmp_path, capsys):
    write_log(tmp_path)
    code, out, errors = run(capsys, "audit", "verify", tmp_path)
    assert (code, errors) == (0, "")
    for row in (
        "gaps         0",
        "runs         4 ended, 0 without",
        "ATP spent    60.120000",
        "verdict      sound",
    ):
        assert row in out


def test_audit_verify_names_each_finding_and_ends_with_1(tmp_path, capsys):
    write_log(tmp_path)
    file = tmp_path / "telemetry.jsonl"
    file.write_text(file.read_text().replace('"cause":"admit"', '"cause":"join"', 1))
    code, out, errors = run(capsys, "audit", "verify", file, "--public-key", tmp_path / "audit_key.pub.pem")
    assert (code, errors) == (1, "")
    assert out.startswith(f"{file}:4: seq 3: record_hash (changed): expected ")
    assert out.endswith("verdict      1 findings\n")


def test_audit_verify_reports_every_journal_as_json(tmp_path, capsys):
    for name in "ab":
        write_log(tmp_path / name)
    (tmp_path / "b" / "audit_head.json").unlink()
    code, out, errors = run(capsys, "audit", "verify", "--json", tmp_path / "a", tmp_path / "b")
    assert (code, errors) == (1, "")
    sound, unsound = json.loads(out)
    assert (sound["is_sound"], sound["runs"], sound["findings"]) == (True, 4, [])
    assert unsound["findings"][0]["problem"].startswith("expected a signed head")


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_journal_that_is_not_there_is_named(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    code, out, errors = run(capsys, "audit", "verify", name)
    assert (code, out) == (1, "")
    assert_said(errors, name if name != "." else "telemetry.jsonl", "no telemetry journal")


def test_a_public_key_that_is_none_is_named(tmp_path, capsys):
    write_log(tmp_path)
    (tmp_path / "key").write_text("secret")
    code, out, errors = run(capsys, "audit", "verify", tmp_path, "--public-key", tmp_path / "key")
    assert (code, out) == (2, "")
    assert_said(errors, "key", "expected an Ed25519 public key")


def command_line(*arguments, **kwargs):
    return subprocess.Popen([sys.executable, "-m", "sage_edge", *map(str, arguments)], text=True, **kwargs)


def test_a_reader_who_has_seen_enough_ends_tail_quietly(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text(GOLDEN.read_text() * 2000)
    with command_line(
        "telemetry", "tail", "-n", 10**6, file, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert json.loads(process.stdout.readline())
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


# doctor and evaluate, from end to end


def test_doctor_says_that_all_is_well(tmp_path, capsys):
    code, out, errors = run(capsys, "doctor", "--telemetry-dir", tmp_path, *QUICK)
    assert (code, errors) == (0, "")
    assert "plugin      vision: onnxruntime-cpu" in out


def test_doctor_ends_with_1_when_the_service_could_not_run(capsys):
    code, out, errors = run(capsys, "doctor", "--vision-model", "nowhere", *QUICK)
    assert (code, errors) == (1, "")
    assert "NOT usable" in out


@pytest.fixture
def labelled(tmp_path):
    """Two frames with labels, in the layout that evaluate reads."""
    for name in ("val", "valannot"):
        (tmp_path / name).mkdir()
    for number in range(2):
        content = (FRAMES / "nuclei.webp").read_bytes()
        (tmp_path / "val" / f"frame{number}.webp").write_bytes(content)
        Image.fromarray(np.full((256, 256), number, np.uint8)).save(
            tmp_path / "valannot" / f"frame{number}.png"
        )
    return tmp_path


def test_evaluate_prints_a_table_and_writes_the_report(labelled, capsys):
    report = labelled / "report.json"
    code, out, _ = run(
        capsys, "evaluate", "vision", "--data", labelled, "--split", "val", "--json", report, *QUICK
    )
    assert code == 0
    written = json.loads(report.read_text(), parse_constant=pytest.fail)
    assert (written["split"], written["frames"]) == ("val", 2)
    assert out.startswith(f"{written['model']} on val: 2 frames, onnxruntime-cpu\n")
    for name, run_ in written["runs"].items():
        [line] = [line for line in out.splitlines() if line.split()[0] == name and len(line.split()) == 5]
        assert f"{run_['mIoU']:.4f}" in line


def test_evaluate_refuses_a_report_that_cannot_be_written_before_it_works(labelled, capsys):
    report = labelled / "missing" / "report.json"
    code, out, errors = run(
        capsys, "evaluate", "vision", "--data", labelled, "--split", "val", "--json", report, *QUICK
    )
    assert (code, out) == (1, "")
    assert_said(errors, str(report), "No such file")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("val/frame1.webp", b"text", ["frame1.webp: ", "JPEG, PNG or WebP"]),
        ("valannot/frame1.png", b"text", ["frame1.png: ", "broken"]),
        ("valannot/frame1.png", np.zeros((8, 8), np.uint8), ["frame1.png: ", "[256, 256]", "[8, 8]"]),
        ("valannot/frame1.png", np.zeros((256, 256, 3), np.uint8), ["frame1.png: ", "[256, 256, 3]"]),
        ("valannot/frame1.png", np.full((256, 256), 9, np.uint8), ["frame1: ", "0..2", "9..9", "--void"]),
    ],
)
def test_evaluate_names_the_file_that_cannot_be_used(labelled, capsys, file, content, words):
    if isinstance(content, np.ndarray):
        buffer = io.BytesIO()
        Image.fromarray(content).save(buffer, "PNG")
        content = buffer.getvalue()
    (labelled / file).write_bytes(content)
    code, out, errors = run(capsys, "evaluate", "vision", "--data", labelled, "--split", "val", *QUICK)
    assert (code, out) == (1, "")
    assert_said(errors, *words)
