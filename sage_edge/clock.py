"""Time, behind a door: rooms are handed a clock and never look for one."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the rooms need to know about time."""

    def monotonic_ns(self) -> int:
        """Nanoseconds that never go back; the zero is arbitrary."""

    def unix_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC; may jump when the system's clock is set."""

    def sleep(self, duration_s: float) -> None:
        """Let ``duration_s`` seconds pass."""


class SystemClock:
    """The clock of the operating system."""

    def monotonic_ns(self) -> int:
        """Nanoseconds of CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def unix_ns(self) -> int:
        """Nanoseconds of CLOCK_REALTIME."""
        return time.time_ns()

    def sleep(self, duration_s: float) -> None:
        """Suspend the calling thread."""
        time.sleep(duration_s)
