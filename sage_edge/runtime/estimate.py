"""How long something takes, learned while it runs; see docs/adr/0015-deadlines.md."""

from __future__ import annotations

from math import frexp, inf

#: A bound that denies something is left alone for so long: where samples come that fast, they correct it.
_GRACE_NS = 20_000_000
#: Then what it has above the least duration halves in each of these.
_HALF_LIFE_NS = 70_000_000
#: A least duration of fewer samples than these is not trusted, so that they are taken at the start.
WARM_UPS = 4
#: Nobody is refused for a bound of fewer samples than these, but for the least of them.
_MANY = 16
#: Nothing was ever shorter than the least duration, but the machine may be faster now: it holds for so long
#: after it was doubted while nothing is learned, and for twice as long after each trial that bore it out.
_PATIENCE_NS, _LONGEST_PATIENCE_NS = 1_000_000_000, 3_600_000_000_000
#: So many times the bound is no sample of the same kind: a suspended process, a swapped page.
_FAR = 3
#: Sizes are told apart by powers of two, up to this one.
_LARGEST_BUCKET = 40


class Estimate:
    """A running mean and mean deviation with exponential forgetting, which cannot veto what would correct it.

    The bound is the mean plus four deviations, as in TCP's retransmission timer (RFC 6298): wide enough
    that a deadline planned with it is rarely missed, tight enough not to waste the time before it.

    Invariants:
        1. A sample far above the bound counts as the bound, unless the one before it was as far and had
           ended when it began: one hiccup, however many durations it falls into, moves next to nothing.
        2. From ``deny`` on the bound falls, towards the least duration that was seen, until something
           is learned: what takes less than was denied is let through within a second.
        3. What has less time than that is let through too, ever more rarely: nothing is refused for ever
           on the word of the past.

    Threads: one calls ``add``; the rest from any, which see values that were true a moment ago.
    """

    def __init__(self) -> None:
        self.mean_ns = 0.0
        self.count = 0
        self._deviation_ns = 0.0
        self._least_ns = inf
        self._denied_ns: int | None = None
        self._doubted_ns: int | None = None
        self._patience_ns = _PATIENCE_NS
        self._suspect_ns: int | None = None

    def add(self, duration_ns: int, now_ns: int) -> None:
        """Learn from one duration, which ends now."""
        if self.count == 0:
            self.mean_ns, self._deviation_ns = float(duration_ns), duration_ns / 2
        else:
            self._judge_denial(duration_ns, now_ns)
            self._learn(self._believed(duration_ns, now_ns))
        self.count += 1
        self._least_ns = min(self._least_ns, duration_ns)

    def deny(self, now_ns: int, *, may_fit: bool = True) -> None:
        """The bound has denied something; ``may_fit``: there was as much time as the least duration."""
        if may_fit and self._denied_ns is None:
            self._denied_ns = now_ns
        elif not may_fit and self._doubted_ns is None:
            self._doubted_ns = now_ns

    @property
    def least_ns(self) -> float:
        """The least duration that was seen; 0 before enough were."""
        return self._least_ns if self.count >= WARM_UPS else 0.0

    def bound_ns(self, now_ns: int) -> int:
        """A duration that is rarely exceeded; 0 before the first one was seen."""
        return int(self._relaxed(self._strict_ns, now_ns))

    def firm_ns(self, now_ns: int) -> int:
        """What somebody may be refused for: the bound, or the least duration while few were seen."""
        bound_ns = self.bound_ns(now_ns)
        return bound_ns if self.count >= _MANY or not self.count else min(bound_ns, int(self._least_ns))

    def hopeful_ns(self, now_ns: int) -> float:
        """The mean, or what is left of it after a denial."""
        return self._relaxed(self.mean_ns, now_ns)

    @property
    def _strict_ns(self) -> float:
        return self.mean_ns + 4 * self._deviation_ns

    def _relaxed(self, value_ns: float, now_ns: int) -> float:
        since_ns, doubted_ns, least_ns = self._denied_ns, self._doubted_ns, self.least_ns
        if doubted_ns is not None and now_ns - doubted_ns >= self._patience_ns:
            since_ns = min(doubted_ns + self._patience_ns, since_ns or now_ns)
            least_ns = 0.0
        if since_ns is None:
            return value_ns
        waited_ns = max(now_ns - since_ns - _GRACE_NS, 0)
        return least_ns + max(value_ns - least_ns, 0.0) * float(2.0 ** -(waited_ns / _HALF_LIFE_NS))

    def _judge_denial(self, duration_ns: int, now_ns: int) -> None:
        """Keep what the bound has fallen by if the sample bears it out, or take it back."""
        fallen_ns, mean_ns = self._relaxed(self._strict_ns, now_ns), self._relaxed(self.mean_ns, now_ns)
        if duration_ns <= fallen_ns < self._strict_ns:
            self.mean_ns, self._deviation_ns = mean_ns, (fallen_ns - mean_ns) / 4
        if duration_ns < self._least_ns:
            self._patience_ns = _PATIENCE_NS
        elif fallen_ns < self.least_ns:
            self._patience_ns = min(2 * self._patience_ns, _LONGEST_PATIENCE_NS)
        self._denied_ns = self._doubted_ns = None

    def _believed(self, duration_ns: int, now_ns: int) -> float:
        """A duration, or the bound in its place where it is far above that and nothing confirms it."""
        if duration_ns <= _FAR * self._strict_ns:
            self._suspect_ns = None
            return duration_ns
        is_confirmed = self._suspect_ns is not None and now_ns - duration_ns >= self._suspect_ns
        self._suspect_ns = now_ns
        return duration_ns if is_confirmed else self._strict_ns

    def _learn(self, duration_ns: float) -> None:
        above_ns = duration_ns - self.mean_ns
        # A duration below the mean is no reason to expect longer ones, so it never widens the bound.
        away_ns = above_ns if above_ns > 0 else min(-above_ns, self._deviation_ns)
        self._deviation_ns += (away_ns - self._deviation_ns) / 4
        self.mean_ns += above_ns / min(8, self.count + 1)


class SizedEstimate:
    """How long a batch takes, by its rows and the size of its largest: an estimate for each that was seen.

    Sizes are in a unit of the plugin's own and count by powers of two. A size that was not seen yet counts as
    the nearest smaller one that was: by how much it takes longer only trying it can tell. Below all that
    were seen nothing is known. A number of rows that was not seen counts as the nearest one, longer in
    proportion where it has more of them.

    Threads: as Estimate.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Estimate] = {}
        self._latest: tuple[int, int] | None = None

    def add(self, duration_ns: int, now_ns: int, *, rows: int = 1, size: float = 1.0) -> None:
        """Learn from one batch, which ends now."""
        key = (bucket_of(size), rows)
        known = self._known.get(key) or Estimate()
        known.add(duration_ns, now_ns)
        self._known[key] = known
        self._latest = key

    def deny(self, now_ns: int, *, rows: int = 1, size: float = 1.0, may_fit: bool = True) -> None:
        """The bound for such a batch has denied somebody something; see Estimate."""
        self._nearest(bucket_of(size), rows)[0].deny(now_ns, may_fit=may_fit)

    def least_ns(self, *, rows: int = 1, size: float = 1.0) -> float:
        """The least duration of such a batch, or of the nearest; 0 before enough were seen."""
        return self._nearest(bucket_of(size), rows)[0].least_ns

    def bound_ns(self, now_ns: int, *, rows: int = 1, size: float = 1.0) -> int:
        """A duration that such a batch rarely exceeds; 0 before any of its size or a smaller one was seen."""
        known, scale = self._nearest(bucket_of(size), rows)
        return int(known.bound_ns(now_ns) * scale)

    def firm_ns(self, now_ns: int, *, rows: int = 1, size: float = 1.0) -> int:
        """What somebody may be refused for; see Estimate."""
        known, scale = self._nearest(bucket_of(size), rows)
        return int(known.firm_ns(now_ns) * scale)

    def mean_ns(self, rows: int = 1, size: float | None = None) -> float:
        """Mean duration of a batch, by default of the size that was seen last; 0 before any was seen."""
        if size is not None or self._latest is None:
            bucket = bucket_of(1.0 if size is None else size)
        else:
            bucket = self._latest[0]
        known, scale = self._nearest(bucket, rows)
        return known.mean_ns * scale

    @property
    def latest_size(self) -> float:
        """The size that was seen last, rounded down to a power of two."""
        return 1.0 if self._latest is None else 2.0 ** self._latest[0]

    def _nearest(self, bucket: int, rows: int) -> tuple[Estimate, float]:
        known = self._known.get((bucket, rows))
        if known is not None:
            return known, 1.0
        smaller = [key for key in list(self._known) if key[0] <= bucket]
        if not smaller:
            return Estimate(), 1.0
        nearest = min(smaller, key=lambda key: (bucket - key[0], abs(rows - key[1])))
        return self._known[nearest], max(1.0, rows / nearest[1])


def bucket_of(size: float) -> int:
    """The power of two that a size is in: 0 below 2, and for what is no number."""
    if not size >= 2:
        return 0
    return _LARGEST_BUCKET if size == inf else min(frexp(size)[1] - 1, _LARGEST_BUCKET)
