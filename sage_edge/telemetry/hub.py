"""The newest records in memory, for those who ask and those who listen."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from threading import Lock
from typing import TypeAlias

from sage_edge.telemetry.records import Record

log = logging.getLogger(__name__)

#: Is given new records in order, and None once, at the end.
Subscriber: TypeAlias = Callable[[list[Record] | None], object]


@dataclass(frozen=True, slots=True, eq=False)
class _Subscription:
    callback: Subscriber
    request_id: str | None


class Hub:
    """Keeps the newest ``capacity`` records and hands every record to its subscribers.

    Threads: ``publish`` and ``close`` on the drain's thread, where subscribers are called as well, so they
    must be quick; the rest from any thread.
    """

    def __init__(self, capacity: int, given: range = range(0)) -> None:
        """Begin with no records.

        Args:
            capacity: How many are kept.
            given: The numbers that earlier lives gave to records of the same chain.
        """
        self._records: deque[Record] = deque(maxlen=capacity)
        self._begin_seq = given.start
        self._end_seq = given.stop
        self._subscriptions: list[_Subscription] = []
        self._lock = Lock()
        self._is_closed = False

    def knows(self, seq: int) -> bool:
        """Whether a record of this chain can have had that number: one of another chain says nothing here."""
        return self._begin_seq <= seq < self._end_seq

    @property
    def newest(self) -> int:
        """Number of the newest record of this chain."""
        with self._lock:
            return self._end_seq - 1

    def after(self, seq: int, limit: int) -> tuple[list[Record], int]:
        """Up to ``limit`` records that follow ``seq``, oldest first; from -1 for all.

        A number that is not known (``knows``) is as good as -1.

        Returns:
            The records, and how many between ``seq`` and the last of them are missing: lost, or so old
            that only the journal has them.
        """
        with self._lock:
            if not self.knows(seq):
                seq = self._begin_seq - 1
            newer = list(takewhile(lambda record: record["seq"] > seq, reversed(self._records)))
        records = newer[: -limit - 1 : -1]
        missed = records[-1]["seq"] - seq - len(records) if records else 0
        return records, missed

    def subscribe(self, callback: Subscriber, request_id: str | None = None) -> Callable[[], None]:
        """Call ``callback`` with every record to come, or only with the steps of one request.

        Returns:
            A function that ends the subscription; it may be called more than once.
        """
        subscription = _Subscription(callback, request_id)
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._subscriptions.append(subscription)
        if is_closed:
            callback(None)
        return lambda: self._remove(subscription)

    def publish(self, records: Sequence[Record]) -> None:
        """Keep records, at least one and in order of ``seq``, and hand them out."""
        with self._lock:
            self._records.extend(records)
            self._end_seq = records[-1]["seq"] + 1
            subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            wanted = subscription.request_id
            chosen = [record for record in records if wanted is None or _is_step_of(record, wanted)]
            if chosen:
                self._call(subscription, chosen)

    def close(self) -> None:
        """End all subscriptions, and those to come."""
        with self._lock:
            self._is_closed = True
            subscriptions = list(self._subscriptions)
            self._subscriptions.clear()
        for subscription in subscriptions:
            self._call(subscription, None)

    def _call(self, subscription: _Subscription, records: list[Record] | None) -> None:
        try:
            subscription.callback(records)
        except Exception:
            log.exception("telemetry_subscriber_failed action=unsubscribe")
            self._remove(subscription)

    def _remove(self, subscription: _Subscription) -> None:
        with self._lock, suppress(ValueError):
            self._subscriptions.remove(subscription)


def _is_step_of(record: Record, request_id: str) -> bool:
    return record["kind"] == "step" and bool(record["request_id"] == request_id)
