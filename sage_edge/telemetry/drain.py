"""The thread that carries records from the mailboxes to those who keep, count and read them."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from sage_edge.clock import Clock
from sage_edge.errors import ConfigError
from sage_edge.telemetry.board import BoardSample
from sage_edge.telemetry.canonical import Draft, Sealed, draft
from sage_edge.telemetry.chain import Chain
from sage_edge.telemetry.events import Event, Events
from sage_edge.telemetry.hub import Hub
from sage_edge.telemetry.journal import Journal
from sage_edge.telemetry.metrics import Metrics
from sage_edge.telemetry.records import Record, tell
from sage_edge.telemetry.runs import RunDirectory
from sage_edge.telemetry.schema import TelemetryValidator
from sage_edge.telemetry.steps import StepWriter

log = logging.getLogger(__name__)

#: Small, so that a listener waits for milliseconds of work at most.
_BATCH_RECORDS = 256
_WAIT_S = 0.05
_PAUSE_AFTER_ERROR_S = 1.0


class Reader(Protocol):
    """The reading end of a mailbox: ``native.RingReader``."""

    @property
    def lost(self) -> int:
        """Records that were overwritten before they were read, so far."""

    def wait(self, max_records: int, timeout_s: float) -> NDArray[Any]:
        """Up to ``max_records`` of RECORD_DTYPE, at once if there are any, else within ``timeout_s``."""


class Drain:
    """Completes, checks, chains, writes, counts and publishes records.

    ``seq`` counts every record that was to be, lost ones too: a gap in it is a loss, as many records wide.
    Records of one mailbox keep their order, so those of a run come in order of step; so do events.

    Threads: ``start`` and ``stop`` from one; the work is done on a thread of its own.
    """

    def __init__(
        self,
        readers: Sequence[Reader],
        *,
        events: Events,
        directory: RunDirectory,
        validator: TelemetryValidator,
        journal: Journal | None,
        chain: Chain,
        hub: Hub,
        metrics: Metrics,
        clock: Clock,
        entity_id: str,
        look_at_board: Callable[[], BoardSample | None] = lambda: None,
    ) -> None:
        self._readers = readers
        self._events = events
        self._validator = validator
        self._journal = journal
        self._chain = chain
        self._hub = hub
        self._metrics = metrics
        self._clock = clock
        self._entity_id = entity_id
        self._look_at_board = look_at_board
        self._numbers = range(len(readers))
        self._overrun = [0] * len(readers)
        self._unwritten = 0
        self._steps = StepWriter(directory, validator, self._give_up)
        self._told: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry-drain", daemon=True)

    def start(self) -> None:
        """Begin to drain."""
        self._thread.start()

    def stop(self) -> None:
        """Drain what is left, sign it, flush it to the disk and end. The loops must have ended before."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def drain_once(self, timeout_s: float) -> int:
        """Handle all events and a batch of each mailbox; wait up to ``timeout_s`` in all for any.

        Returns:
            How many events and records were read.
        """
        count = self._drain_events() + sum(self._drain_reader(number, 0.0) for number in self._numbers)
        for number in self._numbers if not count else ():
            count += self._drain_reader(number, 0.0 if count else timeout_s / len(self._readers))
        self._checkpoint(at_end=False)
        return count

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._drain_safely(_WAIT_S)
        while self._drain_safely(0.0):
            pass
        self._checkpoint(at_end=True)
        self._chain.sign()

    def _drain_safely(self, timeout_s: float) -> int:
        try:
            return self.drain_once(timeout_s)
        except Exception:
            log.exception("telemetry_drain_failed action=go_on")
            self._stopping.wait(_PAUSE_AFTER_ERROR_S)
            return 0

    def _resume(self) -> None:
        try:
            self._chain.resume()
        except ConfigError as exc:  # the disk came back with somebody else's files
            if self._journal:
                self._journal.fail(exc)

    def _drain_reader(self, number: int, timeout_s: float) -> int:
        """Handle a batch of one mailbox; returns how many records were read."""
        reader = self._readers[number]
        batch = reader.wait(_BATCH_RECORDS, timeout_s)
        self._count_overrun(number, reader.lost)
        if len(batch):
            self._resume()
            written = self._steps.write(
                batch,
                seq=self._chain.take(len(batch)),
                unix_offset_ns=self._unix_offset_ns(),
                board=self._look_at_board(),
            )
            for record in self._publish(written):
                if record["halt_reason"]:
                    self._metrics.run_halted(record)
        return len(batch)

    def _count_overrun(self, number: int, lost: int) -> None:
        """What a reader skipped came before the batch that it has just returned."""
        missed = lost - self._overrun[number]
        if missed:
            self._overrun[number] = lost
            self._chain.take(missed)
            self._metrics.records_lost("mailbox", missed)

    def _drain_events(self) -> int:
        events, lost = self._events.take()
        self._handle(events)
        if lost:
            self._chain.take(lost)
            self._metrics.records_lost("events", lost)
        return len(events)

    def _checkpoint(self, *, at_end: bool) -> None:
        """Sign the chain if it is time."""
        if fields := self._chain.checkpoint(at_end=at_end):
            self._handle([Event("checkpoint", fields, self._clock.monotonic_ns())])
            self._chain.sign()

    def _handle(self, events: Sequence[Event]) -> None:
        """Publish the records of events, but for those that fail the schema."""
        if not events:
            return
        self._resume()
        unix_offset_ns = self._unix_offset_ns()
        first_seq = self._chain.take(len(events))
        told = [
            tell(event, entity_id=self._entity_id, seq=seq, unix_offset_ns=unix_offset_ns)
            for seq, event in enumerate(events, first_seq)
        ]
        self._publish([made for record in told if (made := self._draft(record))])

    def _publish(self, drafts: Sequence[Draft]) -> list[Sealed]:
        """Chain records, write them, count them and hand them on."""
        records = self._chain.append(drafts)
        self._count_unwritten()
        for kind, count in Counter(record["kind"] for record in records).items():
            self._metrics.records_published(kind, count)
        if records:
            self._hub.publish(records)
        return records

    def _unix_offset_ns(self) -> int:
        return self._clock.unix_ns() - self._clock.monotonic_ns()

    def _draft(self, record: Record) -> Draft | None:
        """A record that is ready for the chain; None when it had to be given up."""
        errors = self._validator.errors(record)
        try:
            if not errors:
                return draft(record)
        except ValueError as exc:  # a text with half a surrogate pair
            errors.append(f"{type(exc).__name__}: {exc}")
        self._give_up("schema", errors[0])
        return None

    def _give_up(self, stage: str, message: str) -> None:
        """Count a record as lost; say so once for each kind of error."""
        self._metrics.records_lost(stage, 1)
        kind = f"{stage} {message.partition(':')[0]}"
        if kind not in self._told:
            self._told.add(kind)
            log.error("telemetry_record_refused stage=%s error=%r (said once)", stage, message)

    def _count_unwritten(self) -> None:
        if self._journal and (missed := self._journal.lost - self._unwritten):
            self._unwritten = self._journal.lost
            self._metrics.records_lost("journal", missed)
