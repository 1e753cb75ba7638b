"""The demo runs on the frames that ship, adds up, and what it records is valid."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_demo_compares_early_stop_and_fixed_steps_and_its_telemetry_is_valid(tmp_path):
    command = [sys.executable, "demos/vision_latent_irp.py", "--threads", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    rows = {
        name: line.removeprefix(name).split()
        for name in ("all steps", "early stop", "fixed, as many on average")
        for line in done.stdout.splitlines()
        if line.startswith(name)
    }
    full, stopped, fixed = rows.values()
    assert (full[0], full[2], full[4]) == ("8.00", "1.00x", "0.00")
    assert float(stopped[1]) == pytest.approx(float(fixed[1]))  # the same compute
    saved, lost = float(stopped[2].rstrip("x")), float(stopped[4])
    assert saved > 1.5
    # Twice the compute saved at a point lost at most: what the eight frames give is told, and is the status.
    assert done.returncode == (0 if saved >= 2.0 and lost <= 1.0 else 1)
    assert ("FAILS" in done.stdout) == (done.returncode == 1)
    assert float(full[3]) > 0.6
    journal = tmp_path / "telemetry" / "telemetry.jsonl"
    records = [r for r in map(json.loads, journal.read_text().splitlines()) if r["kind"] == "step"]
    full_runs = [record for record in records if record["eps"] == 0 and record["steps"] == 8]
    assert len(full_runs) == 8  # one for each frame
    assert ", 0 invalid" in done.stdout
