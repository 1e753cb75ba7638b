"""Check that the C++ sources are formatted as .clang-format says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUFFIXES = {".h", ".cpp", ".cuh", ".cu"}
SOURCES = [
    str(path)
    for folder in ("csrc", "tests/csrc")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in SUFFIXES
]


def main() -> int:
    """The exit code of clang-format."""
    command = [Path(sys.executable).parent / "clang-format", "--dry-run", "--Werror"]
    return subprocess.run([*command, *SOURCES], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
