"""A file of lines that starts anew when it is full and forgives a line that was cut off."""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

log = logging.getLogger(__name__)

#: Is given the oldest line that stays and True, or if none stays the newest line and False.
OnDrop: TypeAlias = Callable[[bytes, bool], None]


class RotatingFile:
    """Appends to ``path``, which becomes ``path.1``, then ``path.2``, as it fills up.

    Lines are handed to the operating system as they are written: when the process dies they are there, or
    the last of the file is cut off. A line that is cut off is removed when the file is opened.

    Threads: one at a time. Every method raises OSError; after that, close and open again.
    """

    def __init__(
        self, path: Path, *, max_bytes: int, backups: int, on_drop: OnDrop = lambda _line, _is_kept: None
    ) -> None:
        """Open the file.

        Args:
            path: The file that is written.
            max_bytes: Its size before it is turned over; a longer line gets a file to itself.
            backups: Files that are kept beside it.
            on_drop: Called before the oldest file is deleted to make room.
        """
        self._path = path
        self._on_drop = on_drop
        self._max_bytes = max_bytes
        self._backups = [path.with_name(f"{path.name}.{number + 1}") for number in range(backups)]
        self._open()

    def _open(self) -> None:
        self._file = FileIO(self._path, "a+")
        try:  # two writers would interleave their records
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            self._file.close()
            raise OSError(errno.EBUSY, "another process writes this file") from exc
        size = self._file.seek(0, os.SEEK_END)
        self._size = _end_of_last_line(self._file)
        if self._size < size:
            self._file.truncate(self._size)
            log.warning("telemetry_torn_line file=%s removed_bytes=%d", self._path.name, size - self._size)

    def write(self, lines: Sequence[bytes]) -> int:
        """Append lines, given without their line ends, as many as fit into the file, in one write.

        Rotates first if not even the first would fit.

        Returns:
            How many of the first are on file, whole; at least one.
        """
        if self._size and self._size + len(lines[0]) + 1 > self._max_bytes:
            self._rotate()
        ends = list(accumulate(len(line) + 1 for line in lines))
        fitting = max(1, bisect_right(ends, self._max_bytes - self._size))
        taken = self._file.write(b"\n".join([*lines[:fitting], b""]))
        whole = bisect_right(ends[:fitting], taken)
        self._size += ends[whole - 1] if whole else 0
        if whole < fitting:
            self._file.truncate(self._size)
        if not whole:
            raise OSError(errno.ENOSPC, "only a part of a line was written")
        return whole

    def check(self) -> None:
        """Raise FileNotFoundError if the file was deleted: writing to it would succeed, and be lost."""
        if os.fstat(self._file.fileno()).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "the file was deleted")

    def flush(self) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def last_line(self) -> bytes | None:
        """The newest line, from the newest backup if the file itself is empty."""
        for path in (self._path, *self._backups[:1]):
            if _size(path):
                with path.open("rb") as file:
                    return deque(file, maxlen=1).pop()
        return None

    def lines(self) -> Iterator[bytes]:
        """Every line, oldest first."""
        for path in (*reversed(self._backups), self._path):
            if _size(path):
                with path.open("rb") as file:
                    yield from file

    def _rotate(self) -> None:
        self._file.close()
        names = [self._path, *self._backups]
        if names[-1].exists():
            self._on_drop(*self._oldest_after(names[:-1]))
        names[-1].unlink(missing_ok=True)
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            if newer.exists():
                newer.rename(older)
        self._open()

    def _oldest_after(self, kept: list[Path]) -> tuple[bytes, bool]:
        """What ``on_drop`` is given when the files ``kept``, newest first, stay."""
        for path in reversed(kept):
            if _size(path):
                with path.open("rb") as file:
                    return file.readline(), True
        return self.last_line() or b"", False


def _size(path: Path) -> int:
    """Bytes in a file, 0 without one."""
    return path.stat().st_size if path.exists() else 0


def _end_of_last_line(file: FileIO) -> int:
    """Offset just after the last line end, 0 without one."""
    if not os.fstat(file.fileno()).st_size:
        return 0  # an empty file cannot be mapped
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.rfind(b"\n") + 1
