"""The benchmarks run: on a little work, as commands, and what they write is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "latent_step": ["--rounds", "1", "--largest", "65536", "--threads", "1"],
    "mailbox": ["--rounds", "1", "--records", "2000"],
    "drain": ["--rounds", "1", "--records", "500"],
    "telemetry": ["--seconds", "0.5"],
    "loop": ["--rounds", "1", "--requests", "4"],
    "plugins": ["--requests", "8"],
    "http": ["--requests", "20"],
    "memory": ["--slots", "1"],
    "soak": ["--seconds", "2", "--connections", "2"],
    "deadlines": ["--seconds", "2", "--after", "2", "--callers", "8"],
    "hostile.soak": ["--seconds", "9", "--callers", "2", "--only", "odd_numbers", "bad_framing"],
    "hostile.kill": ["--rounds", "2", "--longest", "0.3"],
    "control.closed_loop": ["--seconds", "0.1"],
    "control.optimum": ["--problems", "8"],
    "gpu.serving": [
        "--backend",
        "cpu",
        "--precision",
        "fp32",
        "--slots",
        "2",
        "--requests",
        "4",
        "--rounds",
        "1",
    ],
    "orchestrator.load": ["--requests", "60", "--slots", "4", "--row-share", "0.5"],
    "orchestrator.overhead": ["--rounds", "1", "--concurrent", "4"],
    "orchestrator.endurance": ["--hours", "0.0005"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_benchmark_runs_and_writes_its_results(name, tmp_path):
    out = tmp_path / "results.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", *COMMANDS[name], "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(out.read_text())
