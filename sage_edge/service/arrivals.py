"""Bodies on their way: each has its time, and the slowest of whoever sends most makes way for others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Any, NamedTuple, TypeVar

from sage_edge.clock import Clock
from sage_edge.errors import BodyTimeoutError

T = TypeVar("T")
#: Seconds that a body has before it makes way for one of a caller who sends as many.
PATIENCE_S = 1.0


class _Arrival(NamedTuple):
    caller: str
    since_ns: int


class Arrivals:
    """The bodies that are being sent, the oldest first.

    Threads: one (the event loop's).
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._coming: dict[asyncio.Future[Any], _Arrival] = {}

    async def take(self, body: Awaitable[T], caller: str, within_s: float) -> T:
        """Wait for a body.

        Args:
            body: What reads it.
            caller: Who sends it.
            within_s: Its time.

        Raises:
            BodyTimeoutError: It did not arrive in time, or had to make way.
        """
        coming = asyncio.ensure_future(body)
        self._coming[coming] = _Arrival(caller, self._clock.monotonic_ns())
        try:
            await asyncio.wait([coming], timeout=within_s)
            if coming.cancelled():
                raise BodyTimeoutError("body: expected it sooner, since it took a place that others wait for")
            if not coming.done():
                raise BodyTimeoutError(f"body: expected all of it within {within_s:g} s")
            return coming.result()
        finally:
            self._coming.pop(coming, None)
            coming.cancel()

    def make_way(self, caller: str) -> bool:
        """End the oldest arrival of whoever has most, for one of ``caller``'s; whether there was one to end.

        That of a caller with as few is left alone for PATIENCE_S.
        """
        counts = Counter(arrival.caller for arrival in self._coming.values())
        if not counts:
            return False
        greediest = max(counts, key=counts.__getitem__)
        oldest = next(coming for coming, arrival in self._coming.items() if arrival.caller == greediest)
        age_s = (self._clock.monotonic_ns() - self._coming[oldest].since_ns) / 1e9
        if counts[greediest] <= counts[caller] + 1 and age_s < PATIENCE_S:
            return False
        del self._coming[oldest]
        return oldest.cancel()
