"""How long something takes, learned while it runs."""

from __future__ import annotations


class Estimate:
    """A running mean and mean deviation with exponential forgetting.

    The bound is the mean plus four deviations, as in TCP's retransmission timer (RFC 6298): wide enough
    that a deadline planned with it is rarely missed, tight enough not to waste the time before it.

    Threads: one writer; a reader on another thread sees a value that was true a moment ago.
    """

    def __init__(self) -> None:
        self.mean_ns = 0.0
        self._deviation_ns = 0.0
        self._count = 0

    def add(self, duration_ns: int) -> None:
        """Learn from one duration."""
        if self._count == 0:
            self.mean_ns, self._deviation_ns = float(duration_ns), duration_ns / 2
        else:
            self._deviation_ns += (abs(duration_ns - self.mean_ns) - self._deviation_ns) / 4
            self.mean_ns += (duration_ns - self.mean_ns) / 8
        self._count += 1

    def relax(self) -> None:
        """Trust a little less in having to wait long: for a bound that forbids what it would learn from."""
        self.mean_ns -= self.mean_ns / 128
        self._deviation_ns -= self._deviation_ns / 64

    @property
    def bound_ns(self) -> int:
        """A duration that is rarely exceeded; 0 before the first one was seen."""
        return int(self.mean_ns + 4 * self._deviation_ns)
