"""Slots of states: one IRPState each, moved by the plugin's own methods."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from sage_edge import native
from sage_edge.errors import EngineError, SageError
from sage_edge.irp import Answer, IRPPlugin, IRPState, TaskContext
from sage_edge.irp.extras import extras_of
from sage_edge.irp.guard import answer_of, calling, failure, number_of, reason_of, state_of
from sage_edge.irp.latent import differs, is_overridden
from sage_edge.memory import UNBOUNDED, Account, Kept, bytes_of
from sage_edge.runtime.estimate import bucket_of
from sage_edge.runtime.refiner import Job
from sage_edge.runtime.slots import Annotate, First, Restored, Stepped

#: Streams whose last two states are kept.
KEPT_STREAMS = 1024
#: Somebody would wait for a step that takes longer than this.
LONG_STEP_NS = 2_000_000
#: What is left of the longest step that was seen, with each step since.
FORGETTING = 0.9
#: For so long steps are begun one after the other in a tick.
TICK_NS = 4_000_000
#: A tick in which no step has ended waits no longer than this for one.
PATIENCE_S = 0.002
T = TypeVar("T")


class _Kept(NamedTuple):
    """An earlier state, and how many energies led to it."""

    state: IRPState
    seen: First
    energies: int


class _Step(NamedTuple):
    """A state, what is known of it, and what the plugin adds to its record."""

    state: IRPState
    seen: First
    extras: Mapping[str, Any]


@dataclass(slots=True)
class _Row:
    """One run: where it is, its best state, and the step that is not settled yet.

    Attributes:
        step: Where the step that was taken leads; None before it has ended.
        is_apart: Whether a thread of its own takes that step.
        turn, begun_ns: When it was begun: of all steps, and in monotonic time.
    """

    job: Job
    state: IRPState
    seen: First
    best: _Kept
    energies: list[float]
    past: deque[_Kept]
    step: _Step | SageError | None = None
    is_apart: bool = False
    turn: int = 0
    begun_ns: int = 0

    @property
    def is_under_way(self) -> bool:
        """Whether a thread of its own is at its step."""
        return self.is_apart and self.step is None


class _Left(NamedTuple):
    """What a stream's last request left."""

    answer: IRPState
    last: IRPState


class _Call:
    """Which method of the plugin is being called, for the error that it may raise."""

    method = ""


class StateSlots:
    """One state in each slot, stepped by the plugin itself.

    Steps are taken one after the other, for about TICK_NS together; who had no turn then is first in the
    next tick. A step that probably lasts is taken on a thread of its own, so that no other run waits for it.
    Which those are tells the longest step that was seen lately for the size of the input; the first step of
    a size that was not seen yet is one too.

    Whatever the plugin overrides is obeyed: its ``project``, ``feasible``, ``gap`` and ``perturb``; its
    ``halt``, which then decides in place of the compiled rule of convergence; and its ``emit_telemetry``,
    whose own fields go to the telemetry with each state. A method that raises, or returns what it must not,
    ends its own run.

    Args:
        plugin: Whose states.
        capacity: Slots.
        history: Earlier states kept of each slot beside the best one, for rewinding.
        annotate: Told of what ``emit_telemetry`` adds, before the state's record is published.
        long_step_ns: Somebody would wait for a step that takes longer.
        memory: Where what streams leave counts: each as what its request needed.
    """

    def __init__(
        self,
        plugin: IRPPlugin,
        *,
        capacity: int,
        history: int,
        annotate: Annotate,
        long_step_ns: int = LONG_STEP_NS,
        memory: Account = UNBOUNDED,
    ) -> None:
        self.capacity = capacity
        self.can_rewind = plugin.can_rewind
        self._plugin = plugin
        self._history = history
        self._annotate = annotate
        self._long_step_ns = long_step_ns
        self._rows: list[_Row] = []
        self._streams: Kept[_Left] = Kept(KEPT_STREAMS, memory)
        self._decides = is_overridden(plugin, "halt")
        self._reports = is_overridden(plugin, "emit_telemetry")
        # Not ``is_overridden``: what a LatentPlugin derives counts here.
        self._projects = differs(plugin, "project", IRPPlugin)
        self._bounds = differs(plugin, "feasible", IRPPlugin) or differs(plugin, "gap", IRPPlugin)
        #: The longest step lately, by the power of two of the input's size.
        self._longest_ns: dict[int, float] = {}
        self._turns = itertools.count(1)
        self._left_behind: list[_Row] = []
        #: Set when a step on a thread of its own has ended.
        self._ended = threading.Event()

    @property
    def left_behind(self) -> int:
        """Runs that have ended while a step of theirs went on; see SlotStates."""
        self._left_behind = [row for row in self._left_behind if row.is_under_way]
        return len(self._left_behind)

    @property
    def apart_since_ns(self) -> int | None:
        """When the oldest step that is under way was begun; see SlotStates."""
        under_way = (row for row in (*self._rows, *self._left_behind) if row.is_under_way)
        return min((row.begun_ns for row in under_way), default=None)

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
            row = self._named(partial(self._begin, job))
            if isinstance(row, SageError):
                loaded.append(row)
            else:
                self._rows.append(row)
                loaded.append(row.seen)
        return loaded

    def _named(self, work: Callable[[_Call], T]) -> T | SageError:
        """Work that calls the plugin, or its error, which names the method that was being called."""
        call = _Call()
        try:
            return work(call)
        except SageError as exc:
            return exc
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever a plugin raises is its run's own
            return failure(exc, self._plugin.name, call.method)

    def _begin(self, job: Job, call: _Call) -> _Row:
        plugin, name = self._plugin, self._plugin.name
        context = TaskContext(job.stream_id, *(self._streams.get(job.stream_id) or (None, None)))
        call.method = "init_state"
        state = state_of(plugin.init_state(job.x0, context), name, call.method, 0)
        if job.seed is not None:
            call.method = "perturb"
            noisy = plugin.perturb(state, plugin.noise_sigma, np.random.default_rng(job.seed))
            state = state_of(noisy, name, call.method, 0)
        energies: list[float] = []
        first = self._look(state, energies, call)
        self._annotate_if_any(job, first)
        best, past = _Kept(first.state, first.seen, 1), deque[_Kept](maxlen=self._history)
        return _Row(job, first.state, first.seen, best, energies, past)

    def _look(self, state: IRPState, energies: list[float], call: _Call) -> _Step:
        """A state, projected, and what the plugin says of it; its energy is appended to those before."""
        plugin, name = self._plugin, self._plugin.name
        if self._projects:
            call.method = "project"
            state = state_of(plugin.project(state), name, call.method, state.step_idx)
        call.method = "energy"
        energies.append(number_of(plugin.energy(state), name, call.method))
        feasible, gap, code = True, 0.0, 0
        if self._bounds:
            call.method = "feasible"
            feasible = bool(plugin.feasible(state))
            call.method = "gap"
            gap = number_of(plugin.gap(state), name, call.method)
        if self._decides:
            call.method = "halt"
            code = reason_of(plugin.halt(tuple(energies), state), name)
        extras: Mapping[str, Any] = {}
        if self._reports:
            call.method = "emit_telemetry"
            extras = extras_of(plugin.emit_telemetry(state, tuple(energies)), name)
        return _Step(state, First(energies[-1], feasible, gap, code), extras)

    def _annotate_if_any(self, job: Job, step: _Step) -> None:
        if self._reports:
            self._annotate(job.run_id, step.state.step_idx, step.extras)

    def advance(self, live: int, now_ns: Callable[[], int]) -> Stepped:
        """Begin a step of every live row that has none, and see which have ended; see SlotStates."""
        self._ended.clear()
        start_ns, rows = now_ns(), self._rows[:live]
        for row in sorted(rows, key=lambda one: one.turn):
            if row.step is not None or row.is_apart:
                continue
            row.is_apart = self._lasts(row.job)
            if not row.is_apart and now_ns() - start_ns >= TICK_NS:
                continue
            row.turn, row.begun_ns = next(self._turns), now_ns()
            if row.is_apart:
                threading.Thread(
                    target=self._take_apart, args=(row, now_ns), name=f"step-{self._plugin.name}", daemon=True
                ).start()
            else:
                self._take(row, now_ns)
        if all(row.step is None for row in rows):
            self._ended.wait(PATIENCE_S)
        steps = {slot: row.step for slot, row in enumerate(rows) if row.step is not None}
        failed = {slot: step for slot, step in steps.items() if isinstance(step, SageError)}
        return Stepped([slot for slot in steps if slot not in failed], failed)

    def _lasts(self, job: Job) -> bool:
        """Whether somebody would wait for a step, as far as is known."""
        if self.capacity == 1 or not self._longest_ns:
            return False
        return self._longest_ns.get(bucket_of(job.size), np.inf) > self._long_step_ns

    def _take_apart(self, row: _Row, now_ns: Callable[[], int]) -> None:
        self._take(row, now_ns)
        self._ended.set()

    def _take(self, row: _Row, now_ns: Callable[[], int]) -> None:
        """One step of a row, whose run may have ended meanwhile: then nobody looks at it."""
        start_ns, key = now_ns(), bucket_of(row.job.size)
        step = self._named(partial(self._step, row))
        self._longest_ns[key] = max(now_ns() - start_ns, FORGETTING * self._longest_ns.get(key, 0.0))
        row.step = step

    def _step(self, row: _Row, call: _Call) -> _Step:
        call.method = "step"
        moved = self._plugin.step(row.state, self._plugin.noise_schedule)
        moved = state_of(moved, self._plugin.name, call.method, row.state.step_idx + 1)
        return self._look(moved, row.energies, call)

    def settle(
        self,
        table: native.SlotTable,
        rows: Sequence[int],
        *,
        now_ns: int,
        margins_ns: Sequence[int],
        charges_us: Sequence[float],
    ) -> list[int]:
        """Take the steps and let the halting rule see them."""
        ended = []
        for slot, margin_ns, charge_us in zip(rows, margins_ns, charges_us, strict=True):
            row = self._rows[slot]
            step, row.step, row.is_apart = row.step, None, False
            if not isinstance(step, _Step):
                raise EngineError(f"slot {slot}: expected a step that has ended")
            left = _Kept(row.state, row.seen, len(row.energies) - 1)
            if table.summary(slot).best_is_current:
                row.best = left
            if self._history:
                row.past.append(left)
            row.state, row.seen = step.state, step.seen
            self._annotate_if_any(row.job, step)
            E, feasible, gap, halt = row.seen
            if table.observe(
                slot,
                E,
                now_ns=now_ns,
                margin_ns=margin_ns,
                charge_us=charge_us,
                feasible=feasible,
                gap=gap,
                halt=halt,
            ):
                ended.append(slot)
        return ended

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
        left = _Left(self._best_of(slot, is_current), row.state)
        size = row.job.needed_bytes or sum(bytes_of(state.x) for state in left)
        self._streams.keep(row.job.stream_id, left, size)

    def _best_of(self, slot: int, is_current: bool) -> IRPState:
        row = self._rows[slot]
        return row.state if is_current else row.best.state

    def remove(self, slot: int, last: int) -> None:
        """The last live row takes the place of one that has ended; nothing of the ended one is kept."""
        row = self._rows[slot]
        if row.is_under_way:
            self._left_behind.append(row)
        self._rows[slot] = self._rows[last]
        del self._rows[last:]
