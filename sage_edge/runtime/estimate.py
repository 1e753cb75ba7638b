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
        self.count = 0

    def add(self, duration_ns: int) -> None:
        """Learn from one duration."""
        if self.count == 0:
            self.mean_ns, self._deviation_ns = float(duration_ns), duration_ns / 2
        else:
            self._deviation_ns += (abs(duration_ns - self.mean_ns) - self._deviation_ns) / 4
            self.mean_ns += (duration_ns - self.mean_ns) / 8
        self.count += 1

    def relax(self) -> None:
        """Trust a little less in having to wait long: for a bound that forbids what it would learn from."""
        self.mean_ns -= self.mean_ns / 128
        self._deviation_ns -= self._deviation_ns / 64

    @property
    def bound_ns(self) -> int:
        """A duration that is rarely exceeded; 0 before the first one was seen."""
        return int(self.mean_ns + 4 * self._deviation_ns)


class BatchEstimate:
    """How long a batch takes, by its size: an estimate for each size that was seen.

    A size that was not seen yet counts as the nearest seen one, longer in proportion to its rows where it
    has more of them.

    Threads: as Estimate.
    """

    def __init__(self, largest: int) -> None:
        self._sizes = [Estimate() for _ in range(largest)]

    def add(self, size: int, duration_ns: int) -> None:
        """Learn from one batch of ``size`` rows, 1 to ``largest``."""
        self._sizes[size - 1].add(duration_ns)

    def relax(self, size: int) -> None:
        """See Estimate."""
        self._nearest(size)[0].relax()

    def mean_ns(self, size: int) -> float:
        """Mean duration of a batch of that size; 0 before any was seen."""
        known, scale = self._nearest(size)
        return known.mean_ns * scale

    def bound_ns(self, size: int) -> int:
        """A duration that a batch of that size rarely exceeds; 0 before any was seen."""
        known, scale = self._nearest(size)
        return int(known.bound_ns * scale)

    def _nearest(self, size: int) -> tuple[Estimate, float]:
        if self._sizes[size - 1].count:
            return self._sizes[size - 1], 1.0
        seen = [number for number, known in enumerate(self._sizes, 1) if known.count]
        nearest = min(seen, key=lambda number: abs(number - size), default=size)
        return self._sizes[nearest - 1], max(1.0, size / nearest)
