"""A file of lines that starts anew when it is full and forgives a line that was cut off."""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
from collections import deque
from io import FileIO
from pathlib import Path

log = logging.getLogger(__name__)


class RotatingFile:
    """Appends to ``path``, which becomes ``path.1``, then ``path.2``, as it fills up.

    Each line is one write to the operating system: when the process dies it is there, or it is the last
    of the file and cut off. A line that is cut off is removed when the file is opened.

    Threads: one at a time. Every method raises OSError; after that, close and open again.
    """

    def __init__(self, path: Path, *, max_bytes: int, backups: int) -> None:
        self._path = path
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

    def write(self, line: bytes) -> None:
        """Append a line, its line end included; rotate first if it would not fit."""
        if self._size and self._size + len(line) > self._max_bytes:
            self._rotate()
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, "only a part of a line was written")
        self._size += len(line)

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
            if path.exists() and path.stat().st_size:
                with path.open("rb") as file:
                    return deque(file, maxlen=1).pop()
        return None

    def _rotate(self) -> None:
        self._file.close()
        names = [self._path, *self._backups]
        names[-1].unlink(missing_ok=True)
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            if newer.exists():
                newer.rename(older)
        self._open()


def _end_of_last_line(file: FileIO) -> int:
    """Offset just after the last line end, 0 without one."""
    if not os.fstat(file.fileno()).st_size:
        return 0  # an empty file cannot be mapped
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.rfind(b"\n") + 1
