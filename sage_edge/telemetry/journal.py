"""Records on disk, and a service that outlives a full disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from sage_edge.clock import Clock
from sage_edge.errors import ConfigError
from sage_edge.telemetry.rotating_file import RotatingFile

log = logging.getLogger(__name__)

FILE_NAME = "telemetry.jsonl"
_RETRY_NS = 1_000_000_000


class Journal:
    """Appends records to ``telemetry.jsonl`` as JSON lines, in files that rotate.

    A record reaches the operating system before ``append`` returns, so that a crash of the process loses
    nothing; ``flush`` makes sure against a power cut. While the disk refuses, from the start or later,
    records are counted in ``lost`` and writing is tried again once a second.

    Threads: one at a time.
    """

    def __init__(self, directory: Path, *, max_bytes: int, backups: int, clock: Clock) -> None:
        """Open the journal; its directory is made when there is none.

        Raises:
            ConfigError: The newest line on file is no record.
        """
        self._path = directory / FILE_NAME
        self._max_bytes = max_bytes
        self._backups = backups
        self._clock = clock
        self._file: RotatingFile | None = None
        self._is_failing = False
        self._retry_ns = 0
        #: Records that could not be written.
        self.lost = 0
        #: The place of the next record: one after the newest on file, 0 when there is none.
        self.next_seq = 0
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
            self.next_seq = self._seq_after(self._file.last_line())
        except OSError as exc:
            self._fail(exc)

    def append(self, lines: Sequence[str]) -> None:
        """Write records, one line each without its line end; each is written whole or counted as lost."""
        written = 0
        try:
            if file := self._usable_file():
                for line in lines:
                    file.write(line.encode() + b"\n")
                    written += 1
        except OSError as exc:
            self._fail(exc)
        self.lost += len(lines) - written
        if self._is_failing and written == len(lines) > 0:
            self._is_failing = False
            log.warning("telemetry_journal_resumed lost=%d", self.lost)

    def flush(self) -> None:
        """Wait until what was written is on the disk."""
        try:
            if self._file:
                self._file.flush()
        except OSError as exc:
            self._fail(exc)

    def close(self) -> None:
        """Flush and let go of the file; nothing may be appended after."""
        self.flush()
        if self._file:
            self._file.close()

    def _open(self) -> RotatingFile:
        return RotatingFile(self._path, max_bytes=self._max_bytes, backups=self._backups)

    def _seq_after(self, line: bytes | None) -> int:
        try:
            return int(json.loads(line)["seq"]) + 1 if line else 0
        except (ValueError, KeyError, TypeError) as exc:
            self.close()
            raise ConfigError(
                f"telemetry_dir: {self._path}: expected telemetry records, got {line!r:.80}; move it away"
            ) from exc

    def _usable_file(self) -> RotatingFile | None:
        """The open file; None while it is too early to try again."""
        if self._file:
            self._file.check()
        elif self._clock.monotonic_ns() >= self._retry_ns:
            self._file = self._open()
        return self._file

    def _fail(self, exc: OSError) -> None:
        """Give the file up for a second; said once until it works again."""
        if not self._is_failing:
            log.error("telemetry_journal_failed error=%r action=count_lost_and_retry", str(exc))
        self._is_failing = True
        self._retry_ns = self._clock.monotonic_ns() + _RETRY_NS
        if self._file:
            self._file.close()
            self._file = None
