"""Slots of states: one IRPState each, moved by the plugin's own methods."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sage_edge import native
from sage_edge.errors import SageError
from sage_edge.irp import Answer, IRPPlugin, IRPState, TaskContext
from sage_edge.irp.extras import extras_of
from sage_edge.irp.guard import answer_of, calling, failure, number_of, reason_of, state_of
from sage_edge.irp.latent import differs, is_overridden
from sage_edge.runtime.refiner import Job
from sage_edge.runtime.slots import Annotate, First, Restored
from sage_edge.runtime.streams import Streams

#: Streams whose last two states are kept.
KEPT_STREAMS = 1024


class _Kept(NamedTuple):
    """An earlier state, and how many energies led to it."""

    state: IRPState
    seen: First
    energies: int


@dataclass(slots=True)
class _Row:
    """One run: where it is, its best state, and the step that is not taken yet."""

    job: Job
    state: IRPState
    seen: First
    best: _Kept
    energies: list[float]
    past: deque[_Kept]
    step: tuple[IRPState, First]


class _Left(NamedTuple):
    """What a stream's last request left."""

    answer: IRPState
    last: IRPState


class StateSlots:
    """One state in each slot, stepped one after the other by the plugin itself.

    Whatever the plugin overrides is obeyed: its ``project``, ``feasible``, ``gap`` and ``perturb``; its
    ``halt``, which then decides in place of the compiled rule of convergence; and its ``emit_telemetry``,
    whose own fields go to the telemetry with each state. A method that raises, or returns what it must not,
    ends its own run.

    Args:
        plugin: Whose states.
        capacity: Slots.
        history: Earlier states kept of each slot beside the best one, for rewinding.
        annotate: Told of what ``emit_telemetry`` adds, before the state's record is published.
    """

    def __init__(self, plugin: IRPPlugin, *, capacity: int, history: int, annotate: Annotate) -> None:
        self.capacity = capacity
        self.can_rewind = plugin.can_rewind
        self._plugin = plugin
        self._history = history
        self._annotate = annotate
        self._rows: list[_Row] = []
        self._streams: Streams[_Left] = Streams(KEPT_STREAMS)
        self._decides = is_overridden(plugin, "halt")
        self._reports = is_overridden(plugin, "emit_telemetry")
        # Not ``is_overridden``: what a LatentPlugin derives counts here.
        self._projects = differs(plugin, "project", IRPPlugin)
        self._bounds = differs(plugin, "feasible", IRPPlugin) or differs(plugin, "gap", IRPPlugin)
        #: The method that is being called, for the error that it may raise.
        self._at = ""

    @property
    def history_bytes(self) -> int:
        """Of the best states and the earlier ones, as far as they are arrays."""
        kept = [kept.state for row in self._rows for kept in (row.best, *row.past)]
        return sum(int(getattr(state.x, "nbytes", 0)) for state in kept)

    def load(self, first: int, jobs: Sequence[Job]) -> list[First | SageError]:
        """Make the first states, one by one; see SlotStates."""
        del self._rows[first:]
        loaded: list[First | SageError] = []
        for job in jobs:
            try:
                row = self._begin(job)
            except SageError as exc:
                loaded.append(exc)
            except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever a plugin raises is its run's own
                loaded.append(failure(exc, self._plugin.name, self._at))
            else:
                self._rows.append(row)
                loaded.append(row.seen)
        return loaded

    def _begin(self, job: Job) -> _Row:
        plugin, name = self._plugin, self._plugin.name
        context = TaskContext(job.stream_id, *(self._streams.last(job.stream_id) or (None, None)))
        self._at = "init_state"
        state = state_of(plugin.init_state(job.x0, context), name, self._at, 0)
        if job.seed is not None:
            self._at = "perturb"
            noisy = plugin.perturb(state, plugin.noise_sigma, np.random.default_rng(job.seed))
            state = state_of(noisy, name, self._at, 0)
        state = self._project(state)
        energies: list[float] = []
        seen = self._look(state, energies, job)
        best, past = _Kept(state, seen, 1), deque[_Kept](maxlen=self._history)
        return _Row(job, state, seen, best, energies, past, (state, seen))

    def _project(self, state: IRPState) -> IRPState:
        if not self._projects:
            return state
        self._at = "project"
        return state_of(self._plugin.project(state), self._plugin.name, self._at, state.step_idx)

    def _look(self, state: IRPState, energies: list[float], job: Job) -> First:
        """What the plugin says of a state, whose energy is appended to those before."""
        plugin, name = self._plugin, self._plugin.name
        self._at = "energy"
        energies.append(number_of(plugin.energy(state), name, self._at))
        feasible, gap, code = True, 0.0, 0
        if self._bounds:
            self._at = "feasible"
            feasible = bool(plugin.feasible(state))
            self._at = "gap"
            gap = number_of(plugin.gap(state), name, self._at)
        if self._decides:
            self._at = "halt"
            code = reason_of(plugin.halt(tuple(energies), state), name)
        if self._reports:
            self._at = "emit_telemetry"
            extras = extras_of(plugin.emit_telemetry(state, tuple(energies)), name)
            self._annotate(job.run_id, state.step_idx, extras)
        return First(energies[-1], feasible, gap, code)

    def advance(self, live: int) -> dict[int, SageError]:
        """One step of every live row; see SlotStates."""
        failed: dict[int, SageError] = {}
        for slot, row in enumerate(self._rows[:live]):
            try:
                row.step = self._step(row)
            except SageError as exc:
                failed[slot] = exc
            except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever a plugin raises is its run's own
                failed[slot] = failure(exc, self._plugin.name, self._at)
        return failed

    def _step(self, row: _Row) -> tuple[IRPState, First]:
        plugin, name = self._plugin, self._plugin.name
        self._at = "step"
        moved = plugin.step(row.state, plugin.noise_schedule)
        moved = self._project(state_of(moved, name, self._at, row.state.step_idx + 1))
        return moved, self._look(moved, row.energies, row.job)

    def settle(
        self, table: native.SlotTable, *, now_ns: int, margin_ns: int, tick_us: float
    ) -> NDArray[np.uint8]:
        """Take the steps and let the halting rule see them."""
        rows = self._rows[: table.live]
        for slot, row in enumerate(rows):
            if table.summary(slot).best_is_current:
                row.best = _Kept(row.state, row.seen, len(row.energies) - 1)
            if self._history:
                row.past.append(_Kept(row.state, row.seen, len(row.energies) - 1))
            row.state, row.seen = row.step
        return native.observe(
            table,
            np.array([row.seen.E for row in rows]),
            feasible=np.array([row.seen.feasible for row in rows], np.uint8),
            gap=np.array([row.seen.gap for row in rows]),
            halt=np.array([row.seen.halt for row in rows], np.uint8) if self._decides else None,
            now_ns=now_ns,
            margin_ns=margin_ns,
            tick_us=tick_us,
        )

    def rewind(self, slot: int, attempt: int, table: native.SlotTable) -> Restored:
        """The best state at the first attempt, then the states before by their energy."""
        row = self._rows[slot]
        earlier = [kept for kept in row.past if row.best.seen.E < kept.seen.E < np.inf]
        kept = row.best
        if 0 < attempt <= len(earlier):
            kept = sorted(earlier, key=lambda one: one.seen.E)[attempt - 1]
        # Steps taken stay taken, whatever state they lead on from.
        row.state = IRPState(kept.state.x, row.state.step_idx, kept.state.meta)
        row.seen = kept.seen
        del row.energies[kept.energies :]
        return Restored(kept.seen.E, kept.seen.feasible)

    def answers(self, slots: Sequence[int], is_current: Sequence[bool]) -> list[Answer | SageError]:
        """Decode the best states, one by one."""
        return [self._answer(slot, now) for slot, now in zip(slots, is_current, strict=True)]

    def _answer(self, slot: int, is_current: bool) -> Answer | SageError:
        try:
            with calling(self._plugin.name, "decode"):
                return answer_of(self._plugin.decode(self._best_of(slot, is_current)), self._plugin.name)
        except SageError as exc:
            return exc

    def leave(self, slot: int, is_current: bool) -> None:
        """Keep the state that answered and the last one for the stream, if there is one."""
        row = self._rows[slot]
        self._streams.keep(row.job.stream_id, _Left(self._best_of(slot, is_current), row.state))

    def _best_of(self, slot: int, is_current: bool) -> IRPState:
        row = self._rows[slot]
        return row.state if is_current else row.best.state

    def remove(self, slot: int, last: int) -> None:
        """The last live row takes the place of one that has ended; nothing of the ended one is kept."""
        self._rows[slot] = self._rows[last]
        del self._rows[last:]
