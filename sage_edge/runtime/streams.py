"""What the last request of a stream left, for the next one to begin with."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Streams(Generic[T]):
    """One value for each stream; the stream that was not used for longest makes way.

    Threads: one at a time.
    """

    def __init__(self, capacity: int) -> None:
        self._last: OrderedDict[str, T] = OrderedDict()
        self._capacity = capacity

    def __len__(self) -> int:
        return len(self._last)

    def last(self, stream_id: str | None) -> T | None:
        """What was kept last; None for a stream that is new or forgotten, and without a stream."""
        return None if stream_id is None else self._last.get(stream_id)

    def keep(self, stream_id: str | None, value: T) -> None:
        """Remember a value in the place of the stream's last."""
        if stream_id is None:
            return
        self._last[stream_id] = value
        self._last.move_to_end(stream_id)
        if len(self._last) > self._capacity:
            self._last.popitem(last=False)
