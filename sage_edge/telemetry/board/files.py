"""Small files of /sys, /proc and /etc: what cannot be read is absent, never zero."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_LONGEST_BYTES = 1 << 16


def read_text(path: Path) -> str | None:
    """A file's text without surrounding white space; None where there is none.

    A sensor that is switched off answers EAGAIN, which Python's own file objects turn into a TypeError
    and a poll would wait for; hence plain, non-blocking system calls.
    """
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(handle, _LONGEST_BYTES).decode(errors="replace").strip(" \t\n\0")
        finally:
            os.close(handle)
    return None


def read_int(path: Path) -> int | None:
    """A file's whole number; None where there is no file, or a text such as ``[N/A]``."""
    text = read_text(path)
    return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,19}", text) else None


def numbered(folder: Path, prefix: str) -> Iterator[Path]:
    """The entries ``prefix0``, ``prefix1`` … of a folder in order of their number."""
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)")
    found = {
        int(match[1]): path for path in folder.glob(f"{prefix}*") if (match := pattern.fullmatch(path.name))
    }
    return (found[number] for number in sorted(found))
