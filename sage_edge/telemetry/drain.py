"""The thread that carries records from the mailboxes to those who keep, count and read them."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, Protocol

from numpy.typing import NDArray

from sage_edge.clock import Clock
from sage_edge.errors import ConfigError
from sage_edge.telemetry.board import BoardSample
from sage_edge.telemetry.chain import Chain
from sage_edge.telemetry.events import Event, Events
from sage_edge.telemetry.hub import Hub
from sage_edge.telemetry.journal import Journal
from sage_edge.telemetry.metrics import Metrics
from sage_edge.telemetry.records import RawRecord, Record, complete, tell
from sage_edge.telemetry.runs import RunDirectory
from sage_edge.telemetry.schema import TelemetryValidator

log = logging.getLogger(__name__)

#: Small, so that a listener waits for tens of milliseconds of work at most.
_BATCH_RECORDS = 128
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
        self._directory = directory
        self._validator = validator
        self._journal = journal
        self._chain = chain
        self._hub = hub
        self._metrics = metrics
        self._clock = clock
        self._entity_id = entity_id
        self._look_at_board = look_at_board
        self._overrun = [0] * len(readers)
        self._unwritten = 0
        self._infinite_steps: Counter[int] = Counter()
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
        count = self._drain_events()
        for number, reader in enumerate(self._readers):
            batch = reader.wait(_BATCH_RECORDS, 0.0 if count else timeout_s / len(self._readers))
            self._count_overrun(number, reader.lost)
            self._handle([RawRecord(*fields) for fields in batch.tolist()])
            count += len(batch)
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

    def _handle(self, sources: Sequence[RawRecord | Event]) -> None:
        """Make records, and pass on those that are sound."""
        if not sources:
            return
        self._resume()
        unix_offset_ns = self._clock.unix_ns() - self._clock.monotonic_ns()
        first_seq = self._chain.take(len(sources))
        made = (self._make(source, seq, unix_offset_ns) for seq, source in enumerate(sources, first_seq))
        records = [record for record in made if record and self._is_kept(record)]
        self._count_unwritten()
        for record in records:
            self._metrics.record_published(record["kind"])
            if record["kind"] == "step" and record["halt_reason"]:
                self._metrics.run_halted(record)
        if records:
            self._hub.publish(records)

    def _make(self, source: RawRecord | Event, seq: int, unix_offset_ns: int) -> Record | None:
        if isinstance(source, RawRecord):
            return self._complete(source, seq, unix_offset_ns)
        return tell(source, entity_id=self._entity_id, seq=seq, unix_offset_ns=unix_offset_ns)

    def _complete(self, raw: RawRecord, seq: int, unix_offset_ns: int) -> Record | None:
        """The record of a state, or None when it had to be given up."""
        info = self._directory.get(raw.run_id)
        if info is None:
            self._give_up("directory", "no such run is open")
            return None
        n_dE, extra = self._count_changes(raw), self._directory.extra_of(raw.run_id, raw.step_idx)
        if raw.is_final:
            self._directory.close(raw.run_id)
            self._infinite_steps.pop(raw.run_id, None)
        return complete(
            raw,
            info,
            seq=seq,
            unix_offset_ns=unix_offset_ns,
            n_dE=n_dE,
            board=self._look_at_board(),
            extra=extra,
        )

    def _count_changes(self, raw: RawRecord) -> int:
        """Steps of a run up to this state whose change was finite: those that the core's statistics count."""
        if raw.is_step and not isfinite(raw.dE):
            self._infinite_steps[raw.run_id] += 1
        return raw.step_idx - self._infinite_steps[raw.run_id]

    def _is_kept(self, record: Record) -> bool:
        """Chain a record and write it, unless it fails the schema."""
        if errors := self._validator.errors(record):
            self._give_up("schema", errors[0])
            return False
        try:
            self._chain.append(record)
        except ValueError as exc:  # a text with half a surrogate pair
            self._give_up("schema", f"{type(exc).__name__}: {exc}")
            return False
        return True

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
