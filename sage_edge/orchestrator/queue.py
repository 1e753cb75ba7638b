"""The waiting room in front of a refiner: bounded, by priority, then first come first served."""

from __future__ import annotations

import itertools
import threading
from bisect import insort
from collections.abc import Callable
from typing import NamedTuple

from sage_edge.errors import CapacityError, ClosingError
from sage_edge.orchestrator.request import Ticket


class _Waiting(NamedTuple):
    """Where a ticket stands: before those with a larger key."""

    key: tuple[int, int]
    ticket: Ticket


class Taken(NamedTuple):
    """Tickets that left the room.

    Attributes:
        ready: To be started, in order.
        dead: Given up, or too late to be answered in time.
    """

    ready: list[Ticket]
    dead: list[Ticket]


class WaitingRoom:
    """A bounded queue of tickets.

    Threads: ``put``, ``fits`` and ``close`` from any thread; ``take`` from the one worker.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: list[_Waiting] = []
        self._arrivals = itertools.count()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, ticket: Ticket) -> Ticket | None:
        """Let a ticket wait.

        Returns:
            The older waiting ticket of its stream that it took the place of, if it keeps only the latest.

        Raises:
            CapacityError: The room is full.
            ClosingError: The room takes no more.
        """
        with self._changed:
            if self._closed:
                raise ClosingError("the service is draining; send the request to another one")
            older = self._older_of_stream(ticket)
            if older is not None:
                self._waiting.remove(older)
            elif len(self._waiting) >= self._capacity:
                raise CapacityError(f"{self._capacity} requests are waiting already; try again later")
            insort(self._waiting, _Waiting((-ticket.priority, next(self._arrivals)), ticket), key=_key)
            self._changed.notify()
            return older.ticket if older else None

    def close(self) -> None:
        """Take no more tickets; those inside are still served."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def before(self, priority: int) -> int:
        """How many would be served before a ticket that comes now."""
        return sum(-one.key[0] >= priority for one in tuple(self._waiting))

    def take(self, count: int, *, earliest_ns: Callable[[], int], wait: bool) -> Taken | None:
        """Remove tickets, those of higher priority first, then in order of arrival.

        Args:
            count: How many can be started.
            earliest_ns: The earliest monotonic time at which a ticket started now can be answered.
            wait: Whether to wait until there is a ticket.

        Returns:
            Up to ``count`` tickets to start, and every ticket that is given up or can no longer be
            answered in time; None once the room is closed and empty, if asked to wait.
        """
        with self._changed:
            while wait and not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            earliest = earliest_ns()
            dead = [p for p in self._waiting if p.ticket.is_cancelled() or p.ticket.deadline_ns < earliest]
            if dead:
                gone = {one.key for one in dead}
                self._waiting = [one for one in self._waiting if one.key not in gone]
            ready, self._waiting = self._waiting[:count], self._waiting[count:]
            return Taken([one.ticket for one in ready], [one.ticket for one in dead])

    def _older_of_stream(self, ticket: Ticket) -> _Waiting | None:
        if not ticket.keeps_latest or ticket.stream_id is None:
            return None
        return next((one for one in self._waiting if one.ticket.stream_id == ticket.stream_id), None)


def _key(one: _Waiting) -> tuple[int, int]:
    return one.key
