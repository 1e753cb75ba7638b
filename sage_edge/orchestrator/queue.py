"""The waiting room in front of a refiner: bounded, first come first served."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from sage_edge.errors import CapacityError, ClosingError
from sage_edge.orchestrator.request import Ticket


class WaitingRoom:
    """A bounded queue of tickets.

    Threads: ``put`` and ``close`` from any thread; ``take`` from the one worker.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._tickets: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tickets)

    def put(self, ticket: Ticket) -> None:
        """Let a ticket wait.

        Raises:
            CapacityError: The room is full.
            ClosingError: The room takes no more.
        """
        with self._changed:
            if self._closed:
                raise ClosingError("the service is draining; send the request to another one")
            if len(self._tickets) >= self._capacity:
                raise CapacityError(f"{self._capacity} requests are waiting already; try again later")
            self._tickets.append(ticket)
            self._changed.notify()

    def close(self) -> None:
        """Take no more tickets; those inside are still served."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def take(
        self, count: int, *, earliest_ns: Callable[[], int], wait: bool
    ) -> tuple[list[Ticket], list[Ticket]] | None:
        """Remove tickets in order of arrival.

        Args:
            count: How many can be started.
            earliest_ns: The earliest monotonic time at which a ticket started now can be answered.
            wait: Whether to wait until there is a ticket.

        Returns:
            Up to ``count`` tickets to start, and every ticket that is given up or can no longer be
            answered in time; None once the room is closed and empty, if asked to wait.
        """
        with self._changed:
            while wait and not self._tickets:
                if self._closed:
                    return None
                self._changed.wait()
            earliest = earliest_ns()
            dead = [t for t in self._tickets if t.is_cancelled() or t.deadline_ns < earliest]
            if dead:
                gone = {t.run_id for t in dead}
                self._tickets = deque(t for t in self._tickets if t.run_id not in gone)
            ready = [self._tickets.popleft() for _ in range(min(count, len(self._tickets)))]
            return ready, dead
