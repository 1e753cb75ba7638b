"""The waiting room in front of a refiner: bounded, by priority, then first come first served."""

from __future__ import annotations

import itertools
import threading
from bisect import insort
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sage_edge.errors import CapacityError, ClosingError
from sage_edge.orchestrator.request import Ticket

#: A deadline is looked for no sooner than this after the last look.
_LEAST_WAIT_S = 1e-3


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

    Threads: ``put`` and ``close`` from any thread; ``take`` from the one worker, ``take_dead`` from one that
    has nothing else to do.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: list[_Waiting] = []
        self._arrivals = itertools.count()
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        #: For who waits for the next deadline: one that may be nearer has come, or the room is closed.
        self._nearer = threading.Condition(lock)
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, ticket: Ticket) -> Ticket | None:
        """Let a ticket wait.

        Returns:
            The waiting ticket that it took the place of: the older one of its stream, if it keeps only the
            latest; in a full room the last of those with less priority.

        Raises:
            CapacityError: The room is full.
            ClosingError: The room takes no more.
        """
        with self._changed:
            if self._closed:
                raise ClosingError("the service is draining; send the request to another one")
            older = self._older_of_stream(ticket) or self._last_below(ticket.priority)
            if older is not None:
                self._waiting.remove(older)
            elif len(self._waiting) >= self._capacity:
                raise CapacityError(f"{self._capacity} requests are waiting already; try again later")
            insort(self._waiting, _Waiting((-ticket.priority, next(self._arrivals)), ticket), key=_key)
            self._changed.notify()
            if ticket.due_ms is not None:
                self._nearer.notify()
            return older.ticket if older else None

    def close(self) -> None:
        """Take no more tickets; those inside are still served."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            self._nearer.notify()

    def before(self, priority: int) -> int:
        """How many would be served before a ticket that comes now."""
        return sum(-one.key[0] >= priority for one in tuple(self._waiting))

    def take(self, count: int, *, is_dead: Callable[[Ticket], bool], wait: bool) -> Taken | None:
        """Remove tickets, those of higher priority first, then in order of arrival.

        Args:
            count: How many can be started.
            is_dead: Whether a ticket can no longer be answered in time, were it started now.
            wait: Whether to wait until there is a ticket.

        Returns:
            Up to ``count`` tickets to start, and every ticket that is given up or dead; None once the room
            is closed and empty, if asked to wait.
        """
        with self._changed:
            while wait and not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            dead = self._remove_dead(is_dead)
            ready, self._waiting = self._waiting[:count], self._waiting[count:]
            return Taken([one.ticket for one in ready], dead)

    def take_dead(
        self, is_dead: Callable[[Ticket], bool], left_s: Callable[[Ticket], float]
    ) -> Sequence[Ticket]:
        """Wait until a ticket is dead, and remove it.

        Args:
            is_dead: As for ``take``.
            left_s: Seconds until a ticket will be.

        Returns:
            The dead tickets; empty once the room is closed and empty.
        """
        with self._nearer:
            while not (dead := self._remove_dead(is_dead)):
                if self._closed and not self._waiting:
                    break
                timed = [one.ticket for one in self._waiting if one.ticket.due_ms is not None]
                soonest_s = min((left_s(ticket) for ticket in timed), default=None)
                self._nearer.wait(None if soonest_s is None else max(soonest_s, _LEAST_WAIT_S))
            return dead

    def _remove_dead(self, is_dead: Callable[[Ticket], bool]) -> list[Ticket]:
        dead = [one for one in self._waiting if one.ticket.is_cancelled() or is_dead(one.ticket)]
        if dead:
            gone = {one.key for one in dead}
            self._waiting = [one for one in self._waiting if one.key not in gone]
        return [one.ticket for one in dead]

    def _last_below(self, priority: int) -> _Waiting | None:
        """In a full room, who waits last of those with less priority."""
        if len(self._waiting) < self._capacity or -self._waiting[-1].key[0] >= priority:
            return None
        return self._waiting[-1]

    def _older_of_stream(self, ticket: Ticket) -> _Waiting | None:
        if not ticket.keeps_latest or ticket.stream_id is None:
            return None
        return next((one for one in self._waiting if one.ticket.stream_id == ticket.stream_id), None)


def _key(one: _Waiting) -> tuple[int, int]:
    return one.key
