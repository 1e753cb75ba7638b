"""Slots of latents: one array, stepped together, updated by the compiled ``latent_step``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from sage_edge import native
from sage_edge.errors import PluginError, SageError
from sage_edge.irp import Answer
from sage_edge.irp.engine import Float32
from sage_edge.irp.guard import answer_of, calling
from sage_edge.irp.latent import Begun, Carried, LatentPlugin, Start, advance_of, begin
from sage_edge.memory import UNBOUNDED, Account, Kept
from sage_edge.runtime.refiner import Job
from sage_edge.runtime.slots import First, Restored, Stepped

T = TypeVar("T")
Result = TypeVar("Result")

#: Streams whose last answer is kept: two latents each.
KEPT_STREAMS = 16


class LatentSlots:
    """Latents in one array, stepped by a plugin's ``advance`` and the compiled ``latent_step``.

    Where a batch fails its rows are tried one by one, so that the one that is at fault fails alone.

    Args:
        plugin: Whose latents.
        capacity: Slots.
        threads: Threads of the kernel.
        history: Earlier states kept of each slot beside the best one, for rewinding.
        memory: Where what streams leave counts.
    """

    left_behind, apart_since_ns = 0, None

    def __init__(
        self,
        plugin: LatentPlugin,
        *,
        capacity: int,
        threads: int,
        history: int = 0,
        memory: Account = UNBOUNDED,
    ) -> None:
        self.capacity = capacity
        self.can_rewind = plugin.can_rewind
        self._plugin = plugin
        self._pool = native.ThreadPool(threads)
        shape = (capacity, *plugin.state_shape)
        self._z = np.zeros(shape, np.float32)
        self._best = np.zeros(shape, np.float32)
        self._firsts = np.zeros(shape, np.float32)
        self._context = {
            name: np.zeros((capacity, *row), np.float32) for name, row in plugin.context_shapes.items()
        }
        self._step_size = np.full(capacity, plugin.step_size, np.float32)
        self._delta = self._terms = np.zeros((0, 1), np.float32)
        self._past = np.zeros((history, *shape), np.float32)
        self._past_E = np.full((history, capacity), np.inf)
        self._ticks = 0
        self._streams: Kept[Carried] = Kept(KEPT_STREAMS, memory)
        self._jobs: list[Job | None] = [None] * capacity

    @property
    def history_bytes(self) -> int:
        """Of the best states and the earlier ones, all slots together."""
        return self._best.nbytes + self._past.nbytes

    def load(self, first: int, jobs: Sequence[Job]) -> list[First | SageError]:
        """Run ``encode`` on all inputs at once; see SlotStates."""
        try:
            begun = begin(self._plugin, [start_of(job, self._streams) for job in jobs])
        except SageError as exc:
            return [exc] if len(jobs) == 1 else self._load_each(first, jobs)
        rows = slice(first, first + len(jobs))
        self._z[rows], self._firsts[rows] = begun.encoded.z, begun.firsts
        for name, array in self._context.items():
            array[rows] = begun.encoded.context[name]
        self._step_size[rows] = self._plugin.step_size
        self._past_E[:, rows] = np.inf
        self._jobs[rows] = jobs
        return [First(E) for E in begun.encoded.energy_terms.mean(axis=1, dtype=np.float64).tolist()]

    def _load_each(self, first: int, jobs: Sequence[Job]) -> list[First | SageError]:
        """One by one, so that the one that is at fault fails alone."""
        loaded: list[First | SageError] = []
        for job in jobs:
            (one,) = self.load(first, [job])
            first += isinstance(one, First)
            loaded.append(one)
        return loaded

    def advance(self, live: int, now_ns: Callable[[], int]) -> Stepped:
        """Run ``advance`` on the live rows; keeps directions and energy terms for ``settle``."""
        try:
            self._delta, self._terms = self._advance(slice(0, live))
        except SageError as exc:
            failed = {0: exc} if live == 1 else self._advance_each(live)
            return Stepped([row for row in range(live) if row not in failed], failed)
        return Stepped(list(range(live)), {})

    def _advance(self, rows: slice) -> tuple[Float32, Float32]:
        context = {name: array[rows] for name, array in self._context.items()}
        return advance_of(self._plugin, self._z[rows], context, self._step_size[rows])

    def _advance_each(self, live: int) -> dict[int, SageError]:
        """Row by row; a row that fails keeps a direction of zero, which nobody takes."""
        failed: dict[int, SageError] = {}
        moved = []
        for row in range(live):
            try:
                moved.append(self._advance(slice(row, row + 1)))
            except SageError as exc:
                failed[row] = exc
                moved.append((np.zeros_like(self._z[:1]), np.zeros((1, 1), np.float32)))
        widest = max(terms.shape[1] for _, terms in moved)
        self._delta = np.concatenate([delta for delta, _ in moved])
        self._terms = np.concatenate([np.resize(terms, (1, widest)) for _, terms in moved])
        return failed

    def settle(
        self,
        table: native.SlotTable,
        rows: Sequence[int],
        *,
        now_ns: int,
        margins_ns: Sequence[int],
        charges_us: Sequence[float],
    ) -> list[int]:
        """Update, clamp, sum the energies and decide: one call of the kernel, without failed rows."""
        if not rows:
            return []
        self._remember(table)
        reasons = native.latent_step(
            table,
            self._z,
            self._delta[: table.live],
            self._best,
            step_size=self._step_size,
            lo=self._plugin.lo,
            hi=self._plugin.hi,
            energy_terms=self._terms[: table.live],
            now_ns=now_ns,
            margin_ns=max(margins_ns),
            tick_us=sum(charges_us),
            pool=self._pool,
        )
        return [row for row in rows if reasons[row]]

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

    def answers(self, slots: Sequence[int], is_current: Sequence[bool]) -> list[Answer | SageError]:
        """Run ``answers`` on the best latents."""
        best = np.stack([self._best_of(slot, now) for slot, now in zip(slots, is_current, strict=True)])
        return answers_each(self._plugin, best, [self._input(slot) for slot in slots])

    def leave(self, slot: int, is_current: bool) -> None:
        """Keep the first state and the answer for the stream, if there is one."""
        job = self._jobs[slot]
        if job is not None and job.stream_id is not None:
            best = self._best_of(slot, is_current).copy()
            self._streams.keep(job.stream_id, Carried(self._firsts[slot].copy(), best), 2 * best.nbytes)

    def _best_of(self, slot: int, is_current: bool) -> Float32:
        best: Float32 = (self._z if is_current else self._best)[slot]
        return best

    def _input(self, slot: int) -> object:
        job = self._jobs[slot]
        return None if job is None else job.x0

    def remove(self, slot: int, last: int) -> None:
        """Move latents, context, step size and the earlier latents."""
        if slot != last:
            for array in (self._z, self._best, self._firsts, self._step_size, *self._context.values()):
                array[slot] = array[last]
            for kept in (self._past, self._past_E):
                kept[:, slot] = kept[:, last]
        self._jobs[slot] = self._jobs[last]
        self._jobs[last] = None


def start_of(job: Job, streams: Kept[Carried]) -> Start:
    """A job before its first state; a noisy one begins at its noise."""
    return Start(job.x0, job.seed, None if job.seed is not None else streams.get(job.stream_id))


def begin_each(plugin: LatentPlugin, starts: Sequence[Start]) -> list[Begun | SageError]:
    """The first states of requests, each a batch of one, made together where that works."""
    return _each(starts, lambda some: _rows_of(begin(plugin, some)))


def answers_each(plugin: LatentPlugin, z: Float32, inputs: Sequence[object]) -> list[Answer | SageError]:
    """The answers of latents, made together where that works."""

    def decode(rows: Sequence[int]) -> list[Answer]:
        with calling(plugin.name, "answers"):
            found = list(plugin.answers(z[list(rows)], [inputs[row] for row in rows]))
        if len(found) != len(rows):
            raise PluginError(f"{plugin.name}.answers: expected {len(rows)} answers, got {len(found)}")
        return [answer_of(answer, plugin.name, "answers") for answer in found]

    return _each(range(len(z)), decode)


def _each(items: Sequence[T], work: Callable[[Sequence[T]], list[Result]]) -> list[Result | SageError]:
    """Work on all items at once; where that fails, on each alone, so that its error is its own."""
    try:
        return list(work(items))
    except SageError as exc:
        if len(items) == 1:
            return [exc]
    return [found for item in items for found in _each([item], work)]


def _rows_of(begun: Begun) -> list[Begun]:
    """A batch as batches of one, which are views of it."""
    (z, context, terms), firsts = begun
    return [
        Begun(
            type(begun.encoded)(
                z[row : row + 1],
                {name: array[row : row + 1] for name, array in context.items()},
                terms[row : row + 1],
            ),
            firsts[row : row + 1],
        )
        for row in range(len(z))
    ]
