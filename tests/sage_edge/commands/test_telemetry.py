"""`sage-edge telemetry`: a file's last records, and what is wrong with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import assert_said, run

GOLDEN = Path(__file__).parents[2] / "golden" / "v1" / "run_of_3_steps.jsonl"


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
