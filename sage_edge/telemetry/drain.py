"""The thread that carries records from the mailboxes to those who keep, count and read them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from sage_edge.clock import Clock
from sage_edge.telemetry.hub import Hub
from sage_edge.telemetry.journal import Journal
from sage_edge.telemetry.metrics import Metrics
from sage_edge.telemetry.records import RawRecord, Record, complete
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
    """Completes, checks, writes, counts and publishes records.

    ``seq`` counts every record that the loops published, lost ones too: a gap in it is a loss, as
    many records wide. Records of one mailbox keep their order, so those of a run come in order of step.

    Threads: ``start`` and ``stop`` from one; the work is done on a thread of its own.
    """

    def __init__(
        self,
        readers: Sequence[Reader],
        *,
        directory: RunDirectory,
        validator: TelemetryValidator,
        journal: Journal | None,
        hub: Hub,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._readers = readers
        self._directory = directory
        self._validator = validator
        self._journal = journal
        self._hub = hub
        self._metrics = metrics
        self._clock = clock
        self._next_seq = journal.next_seq if journal else 0
        self._lost = [0] * len(readers)
        self._told: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry-drain", daemon=True)

    def start(self) -> None:
        """Begin to drain."""
        self._thread.start()

    def stop(self) -> None:
        """Drain what is left, flush it to the disk and end. The loops must have ended before."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def drain_once(self, timeout_s: float) -> int:
        """Handle one batch of each mailbox; wait up to ``timeout_s`` in all while they are empty.

        Returns:
            How many records were read.
        """
        count = 0
        for number, reader in enumerate(self._readers):
            batch = reader.wait(_BATCH_RECORDS, 0.0 if count else timeout_s / len(self._readers))
            self._count_overrun(number, reader.lost)
            self._handle(batch)
            count += len(batch)
        return count

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._drain_safely(_WAIT_S)
        while self._drain_safely(0.0):
            pass
        if self._journal:
            self._journal.flush()

    def _drain_safely(self, timeout_s: float) -> int:
        try:
            return self.drain_once(timeout_s)
        except Exception:
            log.exception("telemetry_drain_failed action=go_on")
            self._stopping.wait(_PAUSE_AFTER_ERROR_S)
            return 0

    def _count_overrun(self, number: int, lost: int) -> None:
        """What a reader skipped came before the batch that it has just returned."""
        missed = lost - self._lost[number]
        if missed:
            self._lost[number] = lost
            self._next_seq += missed
            self._metrics.records_lost("mailbox", missed)

    def _handle(self, batch: NDArray[Any]) -> None:
        unix_offset_ns = self._clock.unix_ns() - self._clock.monotonic_ns()
        first_seq, self._next_seq = self._next_seq, self._next_seq + len(batch)
        completed = (
            self._complete(RawRecord(*fields), seq, unix_offset_ns)
            for seq, fields in enumerate(batch.tolist(), first_seq)
        )
        records = [record for record in completed if record]
        if not records:
            return
        self._write(records)
        self._metrics.records_published(len(records))
        for record in records:
            if record["halt_reason"]:
                self._metrics.run_halted(record)
        self._hub.publish(records)

    def _complete(self, raw: RawRecord, seq: int, unix_offset_ns: int) -> Record | None:
        """The record of schema version 1.0, or None when it had to be given up."""
        info = self._directory.get(raw.run_id)
        if info is None:
            self._give_up("directory", "no such run is open")
            return None
        if raw.is_final:
            self._directory.close(raw.run_id)
        try:
            record = complete(raw, info, seq=seq, unix_offset_ns=unix_offset_ns)
        except Exception as exc:  # noqa: BLE001 - the plugin's own calibration is called for it
            self._give_up("plugin", f"{type(exc).__name__}: {exc}")
            return None
        if errors := self._validator.errors(record):
            self._give_up("schema", errors[0])
            return None
        return record

    def _give_up(self, stage: str, message: str) -> None:
        """Count a record as lost; say so once for each kind of error."""
        self._metrics.records_lost(stage, 1)
        kind = f"{stage} {message.partition(':')[0]}"
        if kind not in self._told:
            self._told.add(kind)
            log.error("telemetry_record_refused stage=%s error=%r (said once)", stage, message)

    def _write(self, records: Sequence[Record]) -> None:
        if not self._journal:
            return
        lost = self._journal.lost
        self._journal.append([to_line(record) for record in records])
        if self._journal.lost > lost:
            self._metrics.records_lost("journal", self._journal.lost - lost)


def to_line(record: Record) -> str:
    """A record as one line of JSON, without its line end; ASCII."""
    return json.dumps(record, separators=(",", ":"), allow_nan=False)
