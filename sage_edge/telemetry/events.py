"""What happens between the steps, on its way to the drain."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any, NamedTuple


class Event(NamedTuple):
    """Something that leaves a record and is no step.

    Attributes:
        kind: Kind of its record.
        fields: The fields of that kind.
        time_ns: Monotonic time at which it happened.
    """

    kind: str
    fields: Mapping[str, Any]
    time_ns: int


class Events:
    """A bounded queue of events: a full one refuses the newest, and counts it.

    Threads: every method from any thread; the lock is held for a few instructions.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: list[Event] = []
        self._lost = 0
        self._lock = Lock()

    def put(self, event: Event) -> None:
        """Queue an event, whose fields nobody changes from now on. Never waits for the drain."""
        with self._lock:
            if len(self._waiting) < self._capacity:
                self._waiting.append(event)
            else:
                self._lost += 1

    def take(self) -> tuple[list[Event], int]:
        """All that wait, oldest first, and how many were refused after them."""
        with self._lock:
            taken, self._waiting = self._waiting, []
            lost, self._lost = self._lost, 0
        return taken, lost
