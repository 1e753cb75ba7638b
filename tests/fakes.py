"""Stand-ins that tests pass where the service passes the real thing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.native import RECORD_DTYPE


class FakeClock:
    """Time stands still until a test, or the code's own sleep, moves it."""

    def __init__(self, monotonic_ns: int = 0, unix_ns: int = 1_700_000_000_000_000_000) -> None:
        self._monotonic_ns = monotonic_ns
        self._unix_ns = unix_ns

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def unix_ns(self) -> int:
        return self._unix_ns

    def sleep(self, duration_s: float) -> None:
        self.advance(duration_s)

    def set_unix(self, unix_ns: int) -> None:
        self._unix_ns = unix_ns

    def advance(self, duration_s: float) -> None:
        self._monotonic_ns += round(duration_s * 1e9)
        self._unix_ns += round(duration_s * 1e9)


class FakeReader:
    """The reading end of a mailbox that holds what the test put there, one batch for each wait.

    An exception among the batches is raised. A pair (lost, batch) was overrun: so many records are
    missing before the batch.
    """

    def __init__(self, batches: Iterable[Any] = ()) -> None:
        self._batches = list(batches)
        self.lost = 0
        self.timeouts_s: list[float] = []

    def give(self, batch: Any) -> None:
        self._batches.append(batch)

    def wait(self, max_records: int, timeout_s: float) -> NDArray[Any]:
        self.timeouts_s.append(timeout_s)
        batch = self._batches.pop(0) if self._batches else np.empty(0, RECORD_DTYPE)
        if isinstance(batch, Exception):
            raise batch
        if isinstance(batch, tuple):
            lost, batch = batch
            self.lost += lost
        assert len(batch) <= max_records, "the test's batch is larger than the drain asks for"
        return batch
