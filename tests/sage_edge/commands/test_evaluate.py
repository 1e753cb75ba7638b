"""`sage-edge evaluate`, from end to end."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.command_line import FRAMES, QUICK, assert_said, run


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
