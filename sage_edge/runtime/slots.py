"""Where the states of a refiner's slots live, and how one tick moves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sage_edge import native
from sage_edge.runtime.program import SlotProgram, first_states
from sage_edge.runtime.streams import Begun, StreamMemory


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


class Restored(NamedTuple):
    """An earlier state that a slot went back to."""

    E: float
    feasible: bool = True


class SlotStates(Protocol):
    """The states of one refiner's slots: rows 0 .. live-1 are in use.

    Threads: every method belongs to the refiner's thread.

    Attributes:
        capacity: Slots.
        can_rewind: Whether an earlier state and a smaller step can save a run that went astray.
    """

    capacity: int
    can_rewind: bool

    @property
    def history_bytes(self) -> int:
        """Memory that the best and the earlier states of all slots take."""

    def load(
        self,
        first: int,
        inputs: Sequence[Any],
        seeds: Sequence[int | None] = (),
        streams: Sequence[str | None] = (),
    ) -> FirstStates:
        """Encode prepared inputs into the rows from ``first`` on.

        Args:
            first: Row of the first input.
            inputs: Prepared inputs.
            seeds: For each input None, or the seed of noise of the plugin's noise model to start from.
            streams: For each input None, or the stream whose last answer it may start from.
        """

    def rewind(self, slot: int, attempt: int, table: native.SlotTable) -> Restored:
        """Put a slot back to the (``attempt`` + 1)-th lowest of the states kept, with half the step."""

    def advance(self, live: int) -> None:
        """The costly part of a tick: find out where every live row goes. The rows stay as they are."""

    def settle(
        self, table: native.SlotTable, *, now_ns: int, margin_ns: int, tick_us: float
    ) -> NDArray[np.uint8]:
        """Keep the live rows as earlier states, move them, let ``table`` decide and publish their records.

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
    """Latents in one array, stepped by a slot program's engines and the compiled ``latent_step``.

    Args:
        program: The plugin's engines.
        capacity: Slots.
        threads: Threads of the kernel.
        history: Earlier states kept of each slot beside the best one, for rewinding.
    """

    can_rewind = True

    def __init__(self, program: SlotProgram, *, capacity: int, threads: int, history: int = 0) -> None:
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
        self._past = np.zeros((history, *shape), np.float32)
        self._past_E = np.full((history, capacity), np.inf)
        self._ticks = 0
        self._memory = StreamMemory(program)
        self._begun: list[Begun | None] = [None] * capacity

    @property
    def history_bytes(self) -> int:
        """Of the best states and the earlier ones, all slots together."""
        return self._best.nbytes + self._past.nbytes

    def example(self) -> Any:
        """The program's example."""
        return self._program.example()

    def load(
        self,
        first: int,
        inputs: Sequence[Any],
        seeds: Sequence[int | None] = (),
        streams: Sequence[str | None] = (),
    ) -> FirstStates:
        """Run the encoder on n inputs at once.

        A noisy start, and one from the stream's last answer, cost a run of the energy engine more.
        """
        rows = slice(first, first + len(inputs))
        encoded, self._begun[rows] = self._memory.begin(
            first_states(self._program, inputs, seeds), streams, seeds
        )
        self._z[rows] = encoded.z
        for name, array in self._context.items():
            array[rows] = encoded.context[name]
        self._step_size[rows] = self._program.step_size
        self._past_E[:, rows] = np.inf
        return FirstStates(encoded.energy_terms.mean(axis=1, dtype=np.float64))

    def advance(self, live: int) -> None:
        """Run the step engine on the live rows; keeps directions and energy terms for ``settle``."""
        context = {name: array[:live] for name, array in self._context.items()}
        self._delta, self._terms = self._program.advance(self._z[:live], context, self._step_size[:live])

    def settle(
        self, table: native.SlotTable, *, now_ns: int, margin_ns: int, tick_us: float
    ) -> NDArray[np.uint8]:
        """Update, clamp, sum the energies and decide: one call of the kernel."""
        self._remember(table)
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

    def rewind(self, slot: int, attempt: int, table: native.SlotTable) -> Restored:
        """The best state at the first attempt, then the states before by their energy; half the step."""
        best_E = table.summary(slot).best_E
        earlier = [
            (energy, row) for row, energy in enumerate(self._past_E[:, slot]) if best_E < energy < np.inf
        ]
        self._step_size[slot] *= 0.5
        if 0 < attempt <= len(earlier):
            energy, row = sorted(earlier)[attempt - 1]
            self._z[slot] = self._past[row, slot]
            return Restored(float(energy))
        self._z[slot] = self._best[slot]
        return Restored(best_E)

    def _remember(self, table: native.SlotTable) -> None:
        """Keep the live states before they are moved; the oldest make way."""
        if not len(self._past):
            return
        row, live = self._ticks % len(self._past), table.live
        self._past[row, :live] = self._z[:live]
        self._past_E[row, :live] = table.energies()
        self._ticks += 1

    def answers(self, slots: Sequence[int], is_current: Sequence[bool], inputs: Sequence[Any]) -> list[Any]:
        """Run the decoder on the best latents, and keep those of streams."""
        rows = zip(slots, is_current, strict=True)
        best = np.stack([(self._z if current else self._best)[slot] for slot, current in rows])
        for slot, z in zip(slots, best, strict=True):
            self._memory.keep(self._begun[slot], z)
        return self._program.decode(best, inputs)

    def move(self, source: int, target: int) -> None:
        """Copy latent, best latent, context, step size, the earlier latents and whose stream it is."""
        for array in (self._z, self._best, self._step_size, *self._context.values()):
            array[target] = array[source]
        for kept in (self._past, self._past_E):
            kept[:, target] = kept[:, source]
        self._begun[target] = self._begun[source]
