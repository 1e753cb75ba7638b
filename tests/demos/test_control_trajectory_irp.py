"""The demo runs without data, and what it records is valid."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_demo_plans_through_worlds_of_its_own_and_its_telemetry_is_valid(tmp_path):
    command = [sys.executable, "demos/control_trajectory_irp.py", "--worlds", "2", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("1000 ms")]
    assert rows[0][2:4] == ["100%", "100%"]
    assert ", 0 invalid" in done.stdout
