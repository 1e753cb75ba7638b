"""What nvpmodel has noted: which power modes there are, and which is in force."""

from __future__ import annotations

import re
from pathlib import Path

from sage_edge.telemetry.board.files import read_text

_CONFIGURATION = "etc/nvpmodel.conf"


def mode_names(root: Path) -> dict[int, str]:
    """Names of the modes by number; empty where there is no nvpmodel."""
    text = read_text(root / _CONFIGURATION) or ""
    found = re.findall(r"^< *POWER_MODEL +ID=(\d+) +NAME=(\S+) *>", text, re.MULTILINE)
    return {int(number): name for number, name in found}


def mode_in_force(root: Path) -> int | None:
    """Number of the mode that nvpmodel has noted, else of its default; None where neither is told."""
    noted = re.search(r"pmode:(\d+)", read_text(root / "var/lib/nvpmodel/status") or "")
    default = re.search(
        r"^< *PM_CONFIG +DEFAULT=(\d+) *>", read_text(root / _CONFIGURATION) or "", re.MULTILINE
    )
    chosen = noted or default
    return int(chosen[1]) if chosen else None


def mode_name(root: Path) -> str | None:
    """The mode in force by name, or by number where that has no name."""
    number = mode_in_force(root)
    return None if number is None else mode_names(root).get(number, str(number))
