"""The command as a test calls it."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from sage_edge.cli import main

FRAMES = Path(__file__).parents[1] / "demos" / "frames"
QUICK = ["--threads", "1", "--slots", "2"]


def run(capsys, *arguments):
    """Exit code, stdout and stderr without progress bars; no settings come from outside."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SAGE_")}
    try:
        with mock.patch.dict(os.environ, inherited, clear=True):
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
