"""Where the last problem of a stream ended, for the next one to begin with."""

from __future__ import annotations

from collections import OrderedDict

from sage_edge.control import Iterate, Problem


class Streams:
    """The last iterate of each stream; the stream that was not used for longest makes way.

    Threads: one at a time.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._last: OrderedDict[str, tuple[Problem, Iterate]] = OrderedDict()
        self._capacity = capacity

    def first(self, problem: Problem) -> Iterate:
        """A problem's first iterate, warm if its stream has a problem of the same form behind it."""
        if problem.stream_id is not None and problem.stream_id in self._last:
            return problem.first_after(*self._last[problem.stream_id])
        return problem.first()

    def keep(self, problem: Problem, iterate: Iterate) -> None:
        """Remember where a problem ended."""
        if problem.stream_id is None:
            return
        self._last[problem.stream_id] = (problem, iterate)
        self._last.move_to_end(problem.stream_id)
        if len(self._last) > self._capacity:
            self._last.popitem(last=False)
