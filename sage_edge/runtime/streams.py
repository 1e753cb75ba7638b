"""What the last request of a stream left, for the next one to begin with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from sage_edge.runtime.program import Carried, Encoded, Float32, Program

T = TypeVar("T")

#: Streams whose last answer a program's memory keeps: two states each.
KEPT = 16


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


class Begun(NamedTuple):
    """A run of a stream: its name, and the first state that the run's answer will stand for."""

    stream_id: str
    first: Float32


class StreamMemory:
    """Lets a program's requests begin where their stream's last answer is still good.

    Threads: one at a time.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._streams: Streams[Carried] = Streams(KEPT)

    def begin(
        self, encoded: Encoded, streams: Sequence[str | None], seeds: Sequence[int | None] = ()
    ) -> tuple[Encoded, list[Begun | None]]:
        """Take over what has less energy than beginning anew; costs a run of the energy engine each.

        Args:
            encoded: The first states of n requests.
            streams: The stream of each, or None; may be empty.
            seeds: Of the noise of each, or None; may be empty. A noisy start is kept as it is.

        Returns:
            The first states to begin with, and what to hand to ``keep`` with each request's answer.
        """
        begun: list[Begun | None] = [None] * len(encoded.z)
        for row, stream_id in enumerate(streams if self._program.carry_over else ()):
            if stream_id is not None and not (seeds and seeds[row] is not None):
                encoded, begun[row] = self._begin_one(encoded, row, stream_id)
        return encoded, begun

    def _begin_one(self, encoded: Encoded, row: int, stream_id: str) -> tuple[Encoded, Begun]:
        fresh, earlier = encoded.z[row].copy(), self._streams.last(stream_id)
        carry_over = self._program.carry_over
        carried = carry_over(fresh, earlier) if carry_over and earlier else None
        if carried is None:
            return encoded, Begun(stream_id, fresh)
        context = {name: array[row : row + 1] for name, array in encoded.context.items()}
        (terms,) = self._program.energies(carried.z[None], context)
        if not encoded.energy_terms[row].mean(dtype=np.float64) > terms.mean(dtype=np.float64):
            return encoded, Begun(stream_id, fresh)
        z, energy_terms = encoded.z.copy(), encoded.energy_terms.copy()
        z[row], energy_terms[row] = carried.z, terms
        return Encoded(z, encoded.context, energy_terms), Begun(stream_id, carried.first)

    def keep(self, begun: Begun | None, z: Float32) -> None:
        """Remember the answer of a run, float32 [*state_shape]; nothing where it had no stream."""
        if begun is not None:
            self._streams.keep(begun.stream_id, Carried(begun.first, z.copy()))
