"""The engine's library does what we want of it, and nothing beside."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sage_edge.config import shared_file

LOAD = """
import os, sys
from pathlib import Path
from sage_edge.runtime.engine import OnnxEngine
OnnxEngine(Path(sys.argv[1]), threads=1)
print(os.environ["ORT_DISABLE_TELEMETRY"], len(os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize(("given", "word"), [(None, "1"), ("0", "0")])
def test_the_library_reports_nothing_to_its_maker_unless_told_to(given, word):
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {
        "HOME": "/proc",
        "XDG_CACHE_HOME": "/proc",
    }  # it warns when it can keep no identifier there
    environment |= {"ORT_DISABLE_TELEMETRY": given} if given else {}
    model = shared_file("engines/vision/models/nuclei/energy.fp32.onnx")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, model], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == word
    if word == "1":
        assert "telemetry" not in done.stderr.lower()


GROWTH = """
import sys
from pathlib import Path
import numpy as np
from sage_edge.runtime.engine import OnnxEngine

def resident_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

def growth_mib(engine, frames):
    before = resident_mib()
    engine.run({"frame": frames})
    return resident_mib() - before

frames = np.random.default_rng(0).random((16, 3, 256, 256), np.float32)
engines = [OnnxEngine(Path(sys.argv[1]), threads=1) for _ in range(2)]
print(*(growth_mib(engine, frames) for engine in engines))
"""


def test_a_second_network_works_in_the_memory_of_the_first():
    model = shared_file("engines/vision/models/nuclei/encoder.fp32.onnx")
    done = subprocess.run([sys.executable, "-c", GROWTH, model], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first_mib, second_mib = map(float, done.stdout.split())
    assert first_mib > 50  # of scratch memory, for 16 frames
    assert second_mib < 0.3 * first_mib
