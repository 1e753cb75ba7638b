"""Requests that can be asked for by their id: those that run, and those that ended a while ago."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from sage_edge.errors import CapacityError, ParameterError, UnknownRequestError
from sage_edge.orchestrator.request import Ticket


class Answers:
    """Tickets by request id: bounded, and forgotten some time after they ended.

    Threads: every method from any thread.
    """

    def __init__(self, capacity: int, *, keep_s: float, now_ns: Callable[[], int]) -> None:
        self._capacity = capacity
        self._keep_ns = int(keep_s * 1e9)
        self._now_ns = now_ns
        self._kept: OrderedDict[str, Ticket] = OrderedDict()
        self._ended: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def check(self, request_id: str) -> None:
        """Make sure that a new request of this name could be kept.

        Raises:
            CapacityError: All places are taken by requests that still run.
            ParameterError: One of that name is kept already.
        """
        with self._lock:
            self._expire()
            if request_id in self._kept:
                raise ParameterError(f"request id: {request_id!r} is in use; choose another one or delete it")
            if len(self._kept) >= self._capacity and not self._ended:
                raise CapacityError(
                    f"{self._capacity} requests run for later answers already; try again later"
                )

    def keep(self, ticket: Ticket) -> None:
        """Remember a ticket until some time after its end; the one that ended first makes way."""
        with self._lock:
            self._expire()
            if len(self._kept) >= self._capacity and self._ended:
                oldest, _ = self._ended.popitem(last=False)
                self._kept.pop(oldest)
            self._kept[ticket.request_id] = ticket
        ticket.future.add_done_callback(lambda _: self._end(ticket))

    def find(self, request_id: str) -> Ticket:
        """The ticket of that name.

        Raises:
            UnknownRequestError: It is not kept, or no longer.
        """
        with self._lock:
            self._expire()
            if request_id not in self._kept:
                raise UnknownRequestError(
                    f"request {request_id!r}: unknown, or its answer has expired; ask within results_keep_s"
                )
            return self._kept[request_id]

    def drop(self, request_id: str) -> Ticket:
        """Forget a ticket and give it up if it still runs.

        Raises:
            UnknownRequestError: It is not kept.
        """
        ticket = self.find(request_id)
        with self._lock:
            self._kept.pop(request_id, None)
            self._ended.pop(request_id, None)
        ticket.cancel()
        return ticket

    def _end(self, ticket: Ticket) -> None:
        with self._lock:
            if self._kept.get(ticket.request_id) is ticket:
                self._ended[ticket.request_id] = self._now_ns() + self._keep_ns

    def _expire(self) -> None:
        now_ns = self._now_ns()
        while self._ended and next(iter(self._ended.values())) <= now_ns:
            request_id, _ = self._ended.popitem(last=False)
            self._kept.pop(request_id, None)
