"""Where the states of a refiner's slots live, and how one tick moves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sage_edge import native
from sage_edge.runtime.program import SlotProgram


class FirstStates(NamedTuple):
    """What is known of n first states.

    Attributes:
        energies: float64 [n].
        feasible: bool [n]; None when every state is.
        gaps: float64 [n], optimality gaps; None when every gap is 0.
    """

    energies: NDArray[np.float64]
    feasible: NDArray[np.bool_] | None = None
    gaps: NDArray[np.float64] | None = None


class SlotStates(Protocol):
    """The states of one refiner's slots: rows 0 .. live-1 are in use.

    Threads: every method belongs to the refiner's thread.
    """

    capacity: int

    def load(self, first: int, inputs: Sequence[Any]) -> FirstStates:
        """Encode prepared inputs into the rows from ``first`` on."""

    def advance(self, live: int) -> None:
        """The costly part of a tick: find out where every live row goes. The rows stay as they are."""

    def settle(
        self, table: native.SlotTable, *, now_ns: int, margin_ns: int, tick_us: float
    ) -> NDArray[np.uint8]:
        """Move the live rows, let ``table`` decide about each and publish its record.

        Returns:
            uint8 [live], the halt reason code of each row; 0 goes on.
        """

    def answers(self, slots: Sequence[int], is_current: Sequence[bool], inputs: Sequence[Any]) -> list[Any]:
        """Decode the best state of each slot, which is the current one where ``is_current``."""

    def move(self, source: int, target: int) -> None:
        """Copy one row over another."""

    def example(self) -> Any:
        """A prepared input to warm up with."""


class LatentSlots:
    """Latents in one array, stepped by a slot program's engines and the compiled ``latent_step``."""

    def __init__(self, program: SlotProgram, *, capacity: int, threads: int) -> None:
        self.capacity = capacity
        self._program = program
        self._pool = native.ThreadPool(threads)
        shape = (capacity, *program.state_shape)
        self._z = np.zeros(shape, np.float32)
        self._best = np.zeros(shape, np.float32)
        self._context = {
            name: np.zeros((capacity, *row), np.float32) for name, row in program.context_shapes.items()
        }
        self._step_size = np.full(capacity, program.step_size, np.float32)
        self._delta = self._terms = np.zeros((0, 1), np.float32)

    def example(self) -> Any:
        """The program's example."""
        return self._program.example()

    def load(self, first: int, inputs: Sequence[Any]) -> FirstStates:
        """Run the encoder on n inputs at once."""
        rows = slice(first, first + len(inputs))
        encoded = self._program.encode(inputs)
        self._z[rows] = encoded.z
        for name, array in self._context.items():
            array[rows] = encoded.context[name]
        return FirstStates(encoded.energy_terms.mean(axis=1, dtype=np.float64))

    def advance(self, live: int) -> None:
        """Run the step engine on the live rows; keeps directions and energy terms for ``settle``."""
        context = {name: array[:live] for name, array in self._context.items()}
        self._delta, self._terms = self._program.advance(self._z[:live], context, self._step_size[:live])

    def settle(
        self, table: native.SlotTable, *, now_ns: int, margin_ns: int, tick_us: float
    ) -> NDArray[np.uint8]:
        """Update, clamp, sum the energies and decide: one call of the kernel."""
        return native.latent_step(
            table,
            self._z,
            self._delta,
            self._best,
            step_size=self._step_size,
            lo=self._program.lo,
            hi=self._program.hi,
            energy_terms=self._terms,
            now_ns=now_ns,
            margin_ns=margin_ns,
            tick_us=tick_us,
            pool=self._pool,
        )

    def answers(self, slots: Sequence[int], is_current: Sequence[bool], inputs: Sequence[Any]) -> list[Any]:
        """Run the decoder on the best latents."""
        rows = zip(slots, is_current, strict=True)
        best = np.stack([(self._z if current else self._best)[slot] for slot, current in rows])
        return self._program.decode(best, inputs)

    def move(self, source: int, target: int) -> None:
        """Copy latent, best latent and context."""
        for array in (self._z, self._best, *self._context.values()):
            array[target] = array[source]
