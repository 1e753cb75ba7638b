"""Requests that are known by their id after they were submitted: to be asked for, and to be judged."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from sage_edge.errors import CapacityError, ParameterError, UnknownRequestError
from sage_edge.irp.reputation import V3
from sage_edge.memory import Account, Reservation
from sage_edge.orchestrator.request import Result, Ticket

#: Answers whose quality may be reported; the oldest makes way.
MOST_JUDGEABLE = 4096
#: Of a kept ticket: its owner and its name.
_Key: TypeAlias = tuple[str, str]
_INPUTS = frozenset(V3.__dataclass_fields__) - {"atp_earned", "atp_expected"}


class _Kept(NamedTuple):
    """A ticket, and the memory of its answer."""

    ticket: Ticket
    room: Reservation


class Judgeable(NamedTuple):
    """What of an answer its judgement needs.

    Attributes:
        plugin: Who gave it.
        run_id: Of its first branch.
        spent_atp: What it cost.
    """

    plugin: str
    run_id: int
    spent_atp: float

    def value(self, quality: float, inputs: Mapping[str, Any]) -> V3:
        """The value of the answer (docs/AUDIT.md#how-trust-is-earned).

        It earns what it cost, less below a quality of 0.7 and nothing below 0.3.

        Raises:
            ParameterError: An input is missing, unknown or out of its range.
        """
        if set(inputs) != _INPUTS:
            raise ParameterError(f"inputs: expected {', '.join(sorted(_INPUTS))}, got {sorted(inputs)}")
        expected = max(self.spent_atp, 1e-6)
        return V3(atp_earned=expected * payment(quality), atp_expected=expected, **inputs)


def payment(quality: float) -> float:
    """Share of its cost that an answer earns: 0 below 0.3, 1 from 0.7 on, and a line between."""
    return min(max((quality - 0.3) / 0.4, 0.0), 1.0)


class Remembered:
    """Tickets that are kept for later answers, and the newest answers of all, by request id.

    A kept ticket is its owner's: nobody else finds it, and two owners may use one name. It is forgotten some
    time after its end, or as soon as another needs its place or its memory. An answer can be judged once, by
    anybody.

    Threads: every method from any thread.
    """

    def __init__(self, capacity: int, memory: Account, *, keep_s: float, now_ns: Callable[[], int]) -> None:
        """Remember nothing yet.

        Args:
            capacity: Tickets that can be kept.
            memory: Where their answers count.
            keep_s: How long after its end a ticket is kept.
            now_ns: Monotonic time.
        """
        self._capacity = capacity
        self._keep_ns = int(keep_s * 1e9)
        self._now_ns = now_ns
        self._memory = memory
        self._kept: dict[_Key, _Kept] = {}
        self._ended: OrderedDict[_Key, int] = OrderedDict()
        self._judgeable: OrderedDict[str, Judgeable] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def check(self, request_id: str, needed_bytes: int, owner: str = "") -> Reservation:
        """Make sure that a new ticket of this name can be kept.

        Returns:
            Room for its answer; whose ticket ended first makes way for it.

        Raises:
            CapacityError: All places are taken by requests that still run, or all memory is by their answers.
            FrameTooLargeError: Its answer takes more than there can ever be.
            ParameterError: One of that name is kept already.
        """
        with self._lock:
            self._expire()
            if (owner, request_id) in self._kept:
                raise ParameterError(f"request id: {request_id!r} is in use; choose another one or delete it")
            if len(self._kept) >= self._capacity and not self._ended:
                raise CapacityError(
                    f"{self._capacity} requests run for later answers already; try again later"
                )
            while self._ended and not self._memory.has_room(needed_bytes):
                self._forget(next(iter(self._ended)))
            return self._memory.reserve(needed_bytes)

    def keep(self, ticket: Ticket, room: Reservation, owner: str = "") -> None:
        """Keep a ticket until some time after its end; the one that ended first makes way.

        Args:
            ticket: The ticket.
            room: Memory for its answer; what the answer does not take is given back when it is there.
            owner: Whose it is.
        """
        key = owner, ticket.request_id
        with self._lock:
            self._expire()
            if len(self._kept) >= self._capacity and self._ended:
                self._forget(next(iter(self._ended)))
            self._kept[key] = _Kept(ticket, room)
        ticket.future.add_done_callback(partial(self._end, key, room))

    def find(self, request_id: str, owner: str = "") -> Ticket:
        """The owner's kept ticket of that name.

        Raises:
            UnknownRequestError: It is not kept, or no longer.
        """
        with self._lock:
            self._expire()
            if (owner, request_id) not in self._kept:
                raise UnknownRequestError(
                    f"request {request_id!r}: unknown, or its answer has expired; ask within results_keep_s"
                )
            return self._kept[owner, request_id].ticket

    def drop(self, request_id: str, owner: str = "") -> Ticket:
        """Forget a kept ticket of the owner's and give it up if it still runs.

        Raises:
            UnknownRequestError: It is not kept.
        """
        ticket = self.find(request_id, owner)
        with self._lock:
            self._forget((owner, request_id))
        ticket.cancel()
        return ticket

    def note_end(self, request_id: str, plugin: str, run_id: int, future: Future[Result]) -> None:
        """Let the answer of a request that has ended be judged, if there is one."""
        if future.exception() is None:
            self.put_back(request_id, Judgeable(plugin, run_id, future.result().ATP_spent))

    def judge(self, request_id: str) -> Judgeable:
        """The answer to a request, which cannot be judged again.

        Raises:
            UnknownRequestError: None is remembered.
        """
        with self._lock:
            if request_id not in self._judgeable:
                raise UnknownRequestError(
                    f"request {request_id!r}: expected one of the last {MOST_JUDGEABLE} answers whose "
                    "quality was not reported yet"
                )
            return self._judgeable.pop(request_id)

    def put_back(self, request_id: str, answer: Judgeable) -> None:
        """Let an answer be judged, since nobody has judged it after all."""
        with self._lock:
            self._judgeable[request_id] = answer
            if len(self._judgeable) > MOST_JUDGEABLE:
                self._judgeable.popitem(last=False)

    def _end(self, key: _Key, room: Reservation, future: Future[Result]) -> None:
        size = future.result().answer.array.nbytes if future.exception() is None else 0
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and kept.room is room:
                kept.ticket.x0 = None  # what is kept is the answer
                room.shrink_to(size)
                self._ended[key] = self._now_ns() + self._keep_ns

    def _forget(self, key: _Key) -> None:
        self._ended.pop(key, None)
        kept = self._kept.pop(key, None)
        if kept is not None:
            kept.room.release()

    def _expire(self) -> None:
        now_ns = self._now_ns()
        while self._ended and next(iter(self._ended.values())) <= now_ns:
            self._forget(next(iter(self._ended)))
