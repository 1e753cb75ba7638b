"""Lines on disk, and a service that outlives a full disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from sage_edge.clock import Clock
from sage_edge.telemetry.rotating_file import OnDrop, RotatingFile

log = logging.getLogger(__name__)

FILE_NAME = "telemetry.jsonl"
_RETRY_NS = 1_000_000_000


class Journal:
    """Appends lines to ``telemetry.jsonl``, in files that rotate.

    Lines reach the operating system before ``append`` returns, so that a crash of the process loses
    nothing; ``flush`` makes sure against a power cut. While the disk refuses, from the start or later,
    lines are counted in ``lost`` and ``ready`` tries again once a second.

    Threads: one at a time.
    """

    def __init__(self, directory: Path, *, max_bytes: int, backups: int, clock: Clock) -> None:
        """Open the journal; its directory is made when there is none."""
        self.path = directory / FILE_NAME
        self._max_bytes = max_bytes
        self._backups = backups
        self._clock = clock
        self._file: RotatingFile | None = None
        self._retry_ns = clock.monotonic_ns()
        #: Whether the disk refused what was last tried.
        self.is_failing = False
        #: Lines that could not be written.
        self.lost = 0
        #: How often the file was opened.
        self.openings = 0
        #: Told before the oldest file is deleted; see ``RotatingFile``.
        self.on_drop: OnDrop | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            self.fail(exc)
        self.ready()

    def ready(self) -> bool:
        """Whether lines can be appended; opens the file again, once a second, while they cannot."""
        try:
            if self._file:
                self._file.check()
            elif self._clock.monotonic_ns() >= self._retry_ns:
                self._file = RotatingFile(
                    self.path, max_bytes=self._max_bytes, backups=self._backups, on_drop=self._drop
                )
                self.openings += 1
        except OSError as exc:
            self.fail(exc)
        return self._file is not None

    @property
    def is_open(self) -> bool:
        """Whether the disk took what was last written, or has not been asked yet."""
        return self._file is not None

    def append(self, lines: Sequence[bytes]) -> int:
        """Write lines, given without their line ends; returns how many of the first are on file, whole."""
        written = 0
        try:
            while self._file and written < len(lines):
                written += self._file.write(lines[written:])
                if self.is_failing:
                    self.is_failing = False
                    log.warning("telemetry_journal_resumed lost=%d", self.lost)
        except OSError as exc:
            self.fail(exc)
        self.lost += len(lines) - written
        return written

    def flush(self) -> bool:
        """Wait until what was written is on the disk; returns whether it is."""
        try:
            if self._file:
                self._file.flush()
                return True
        except OSError as exc:
            self.fail(exc)
        return False

    def newest_line(self) -> bytes | None:
        """The newest line on file, if there is one.

        Raises:
            OSError: It cannot be read.
        """
        return self._file.last_line() if self._file else None

    def oldest_lines(self) -> Iterator[bytes]:
        """Every line on file, oldest first.

        Raises:
            OSError: They cannot be read.
        """
        if self._file:
            yield from self._file.lines()

    def fail(self, exc: Exception) -> None:
        """Give the file up for a second; said once until it works again."""
        if not self.is_failing:
            log.error("telemetry_journal_failed error=%r action=count_lost_and_retry", str(exc))
        self.is_failing = True
        self._retry_ns = self._clock.monotonic_ns() + _RETRY_NS
        self.close()

    def close(self) -> None:
        """Let go of the file; nothing may be appended after."""
        if self._file:
            self._file.close()
            self._file = None

    def _drop(self, line: bytes, is_kept: bool) -> None:
        if self.on_drop:
            self.on_drop(line, is_kept)
