"""The telemetry room, put together."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sage_edge.clock import Clock
from sage_edge.config import Settings
from sage_edge.telemetry.board import Board, BoardSampler
from sage_edge.telemetry.chain import Chain
from sage_edge.telemetry.checkpoints import Checkpoints
from sage_edge.telemetry.drain import Drain, Reader
from sage_edge.telemetry.events import Event, Events
from sage_edge.telemetry.hub import Hub
from sage_edge.telemetry.journal import Journal
from sage_edge.telemetry.metrics import Metrics
from sage_edge.telemetry.runs import RunDirectory
from sage_edge.telemetry.schema import TelemetryValidator, load_schema

#: Events that may wait for the drain; it takes them twenty times a second.
_MAX_EVENTS = 16_384
#: A chain that begins anew begins anywhere below, so that its numbers are not those of the one before; up to
#: twice as much is exact where numbers are doubles.
_MOST_SEQ = 1 << 52


class Telemetry:
    """From the mailboxes to the journal, the hub and the metrics.

    Attributes:
        directory: Where runs are opened before their first record.
        hub: The newest records, and subscriptions to those to come.
        metrics: The service's numbers.
        validator: The check that every record passes, with its schema.
        board: The board's sensors and its energy; None when ``board_period_s`` is 0.
    """

    def __init__(self, readers: Sequence[Reader], *, settings: Settings, clock: Clock) -> None:
        """Put the parts together; nothing runs before ``start``.

        Raises:
            ConfigError: The schema or the key cannot be read, or the journal's files are somebody else's.
        """
        self.directory = RunDirectory()
        self.metrics = Metrics()
        self.validator = TelemetryValidator(load_schema())
        self._events = Events(_MAX_EVENTS)
        self.board = _open_board(settings, clock)
        if self.board:
            self.metrics.board.watch(self.board)
        self._journal = _open_journal(settings, clock)
        self._checkpoints = _open_checkpoints(settings)
        chain = Chain(self._journal, self._checkpoints, first_seq=secrets.randbelow(_MOST_SEQ))
        self.hub = Hub(settings.telemetry_memory, chain.given_before)
        self._drain = Drain(
            readers,
            events=self._events,
            directory=self.directory,
            validator=self.validator,
            journal=self._journal,
            chain=chain,
            hub=self.hub,
            metrics=self.metrics,
            clock=clock,
            entity_id=settings.entity_id,
            look_at_board=lambda: self.board.newest if self.board else None,
        )

    def status(self) -> dict[str, int]:
        """Records published and lost so far, as JSON."""
        return self.metrics.record_counts()

    def problems(self) -> list[str]:
        """The log events that tell of something wrong that goes on; empty when all is well. Any thread."""
        return ["telemetry_journal_failed"] if self._journal and self._journal.is_failing else []

    def note(self, kind: str, fields: Mapping[str, Any], *, time_ns: int) -> None:
        """Leave a record of something that is no step. Any thread; never waits.

        Past the bound the event is counted as lost (stage ``events``), and so is one that fails the schema.

        Args:
            kind: Its kind: ``ledger``, ``allocation``, ``scene`` or ``trust``.
            fields: The fields of that kind, as in docs/TELEMETRY.md; nobody changes them from now on.
            time_ns: Monotonic time at which it happened.
        """
        self._events.put(Event(kind, fields, time_ns))

    def audit_head(self) -> dict[str, Any] | None:
        """The newest signed head of the audit chain; None where nothing is signed. Any thread."""
        head = self._checkpoints.head if self._checkpoints else None
        return dict(head) if head else None

    def start(self) -> None:
        """Begin to drain, and to look at the board."""
        if self.board:
            self.board.start()
        self._drain.start()

    def close(self) -> None:
        """Write out what is left and end all subscriptions. The loops must have ended before."""
        self._drain.stop()
        if self._journal:
            self._journal.close()
        self.hub.close()
        if self.board:
            self.board.stop()


def _open_board(settings: Settings, clock: Clock) -> BoardSampler | None:
    """None where the settings switch it off."""
    if not settings.board_period_s:
        return None
    return BoardSampler(Board(), period_s=settings.board_period_s, clock=clock)


def _open_journal(settings: Settings, clock: Clock) -> Journal | None:
    """None where the settings keep telemetry in memory only."""
    if not settings.telemetry_dir:
        return None
    return Journal(
        Path(settings.telemetry_dir),
        max_bytes=settings.telemetry_max_bytes,
        backups=settings.telemetry_backups,
        clock=clock,
    )


def _open_checkpoints(settings: Settings) -> Checkpoints | None:
    """None where the settings keep telemetry in memory only: there is nothing to sign."""
    if not settings.telemetry_dir:
        return None
    key_file = Path(settings.audit_key) if settings.audit_key else None
    return Checkpoints(Path(settings.telemetry_dir), key_file=key_file, every=settings.audit_every)
