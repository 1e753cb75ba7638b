"""The demo reads this repository's documents, adds up, and its status is what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASKED = json.loads((ROOT / "demos" / "questions" / "docs.json").read_text(encoding="utf-8"))


def test_the_demo_compares_the_halt_with_fixed_reads_and_its_telemetry_is_valid(tmp_path):
    command = [sys.executable, "demos/language_span_mask_irp.py", "--questions", "6", "--threads", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert done.returncode == ("FAILS" in done.stdout)
    rows = {
        name: line.removeprefix(name).split()
        for name in ("1 read", "8 reads", "default halt", "fixed, as many on average", "oracle")
        for line in done.stdout.splitlines()
        if line.startswith(name)
    }
    one, every, halted, fixed, oracle = rows.values()
    assert (one[0], every[0], every[2]) == ("1.00", "8.00", "1.00x")
    assert halted[0] == fixed[0]  # the same compute
    assert float(oracle[4]) >= max(float(row[4]) for row in (one, every, halted))
    journal = tmp_path / "telemetry" / "telemetry.jsonl"
    records = [
        record for record in map(json.loads, journal.read_text().splitlines()) if record["kind"] == "step"
    ]
    last = [record["steps"] for record in records if record["steps"] is not None]
    assert len(last) == 1 + 6  # the text, which costs no read, and each question
    assert sum(last) / 6 == pytest.approx(float(halted[0]), abs=0.01)
    assert ", 0 invalid" in done.stdout


@pytest.mark.parametrize("entry", ASKED, ids=lambda entry: entry["question"])
def test_every_question_is_answered_by_its_page(entry):
    text = (ROOT / "docs" / entry["page"]).read_text(encoding="utf-8")
    assert any(answer in text for answer in entry["answers"])


def test_there_are_sixty_questions_of_our_own():
    assert len({entry["question"] for entry in ASKED}) == 60
