"""Slots on the CPU: many refinements of one plugin, ticked together, each halted by its own energies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sage_edge import native
from sage_edge.runtime.estimate import Estimate
from sage_edge.runtime.slots import SlotStates


@dataclass(frozen=True, slots=True)
class Job:
    """One refinement to be run.

    Attributes:
        run_id: Its number in the telemetry.
        x0: The plugin's prepared input.
        policy: Its halting rule with its own limits and deadline.
        is_cancelled: Asked before every step.
    """

    run_id: int
    x0: Any
    policy: native.HaltPolicy
    is_cancelled: Callable[[], bool] = field(default=lambda: False)


class Finished(NamedTuple):
    """A refinement that ended: its job, its decoded answer and what the run measured.

    The answer is None for a refinement that was cancelled.
    """

    job: Job
    answer: Any
    summary: native.RunSummary


class CpuRefiner:
    """Keeps the slots of one plugin full, ticks them, and halts and answers each.

    Live slots are always rows 0 .. live-1, so that an engine sees one contiguous batch without dead
    rows. A slot that halts is refilled by the next ``admit``; a hole that stays is closed by moving the
    last live row into it.

    Threads: every method belongs to the one thread that ticks; it is also the ring's producer.
    """

    def __init__(
        self, states: SlotStates, *, ring: native.Ring, plugin_number: int, now_ns: Callable[[], int]
    ) -> None:
        self._states = states
        self._now_ns = now_ns
        self._table = native.SlotTable(states.capacity, ring, plugin_number)
        self._jobs: list[Job] = []
        #: Time from one halting decision to the next, engine and refills included.
        self.tick_time = Estimate()
        self.encode_time = Estimate()
        self.decode_time = Estimate()
        #: Of the last tick: the whole, and the share that step and decoder took; 0 when nothing was live.
        self.last_tick_ns = 0
        self.last_engine_ns = 0
        self._decided_ns: int | None = None

    @property
    def live(self) -> int:
        """Slots in use."""
        return int(self._table.live)

    @property
    def free(self) -> int:
        """Slots that ``admit`` can fill."""
        return self._states.capacity - self.live

    def admit(self, jobs: Sequence[Job]) -> list[Finished]:
        """Encode up to ``free`` jobs as one batch and give each a slot.

        Returns:
            The jobs that ended at their initial state, such as those whose deadline leaves no step.
        """
        if not jobs:
            return []
        start_ns = self._now_ns()
        first = self._states.load(self.live, [job.x0 for job in jobs])
        now_ns = self._now_ns()
        self.encode_time.add(now_ns - start_ns)
        ended = []
        for number, job in enumerate(jobs):
            slot, reason = self._table.admit(
                job.run_id,
                job.policy,
                float(first.energies[number]),
                now_ns=now_ns,
                margin_ns=self._margin_ns,
                charge_us=(now_ns - start_ns) / 1e3 / len(jobs),
                feasible=first.feasible is None or bool(first.feasible[number]),
                gap=0.0 if first.gaps is None else float(first.gaps[number]),
            )
            self._jobs.append(job)
            if reason is not None:
                ended.append(slot)
            if reason == "timeout":
                self.tick_time.relax()
        return self._finish(ended)

    def tick(self) -> list[Finished]:
        """One step of every live slot; returns the refinements that ended before or with it."""
        self.last_tick_ns = self.last_engine_ns = 0
        finished = self._end_cancelled()
        if self.live == 0:
            self._decided_ns = None
            return finished
        start_ns = self._now_ns()
        self._states.advance(self.live)
        decided_ns = self._now_ns()
        self.last_engine_ns = decided_ns - start_ns
        self.tick_time.add(decided_ns - (self._decided_ns or start_ns))
        reasons = self._states.settle(
            self._table,
            now_ns=decided_ns,
            margin_ns=self._margin_ns,
            tick_us=self.last_engine_ns / 1e3,
        )
        finished += self._finish(np.flatnonzero(reasons).tolist())
        self.last_tick_ns = self._now_ns() - start_ns
        self._decided_ns = decided_ns if self.live else None
        return finished

    def abort(self, reason: str) -> list[Job]:
        """End every live refinement without an answer; returns their jobs."""
        now_ns = self._now_ns()
        for slot in range(self.live):
            if self._table.summary(slot).halt_reason is None:
                self._table.close(slot, reason, now_ns)
        while self.live:
            self._table.remove(self.live - 1)
        jobs, self._jobs = self._jobs, []
        return jobs

    def warm_up(self) -> None:
        """Run every engine, so that no request pays for the first time, and learn how long they take."""
        example = self._states.example()
        for count in (self._states.capacity, 1, 1):
            times_ns = [self._now_ns()]
            self._states.load(0, [example] * count)
            times_ns.append(self._now_ns())
            self._states.advance(count)
            times_ns.append(self._now_ns())
            self._states.answers(range(count), [True] * count, [example] * count)
            times_ns.append(self._now_ns())
        self.encode_time.add(times_ns[1] - times_ns[0])
        self.tick_time.add(times_ns[2] - times_ns[1])
        self.decode_time.add(times_ns[3] - times_ns[2])

    @property
    def _margin_ns(self) -> int:
        """What a deadline must still hold for one more step: the step itself and the decoding."""
        return self.tick_time.bound_ns + self.decode_time.bound_ns

    def _end_cancelled(self) -> list[Finished]:
        now_ns = self._now_ns()
        gone = [slot for slot, job in enumerate(self._jobs) if job.is_cancelled()]
        for slot in gone:
            self._table.close(slot, "cancelled", now_ns)
        return self._remove(gone, [None] * len(gone))

    def _finish(self, slots: list[int]) -> list[Finished]:
        """Decode the best states of ended slots as one batch and free the slots."""
        if not slots:
            return []
        is_current = [self._table.summary(slot).best_is_current for slot in slots]
        start_ns = self._now_ns()
        answers = self._states.answers(slots, is_current, [self._jobs[slot].x0 for slot in slots])
        decode_ns = self._now_ns() - start_ns
        self.decode_time.add(decode_ns)
        self.last_engine_ns += decode_ns
        return self._remove(slots, answers)

    def _remove(self, slots: list[int], answers: Sequence[Any]) -> list[Finished]:
        """Free ended slots, from the last so that no row that is still needed moves."""
        finished = []
        for slot, answer in sorted(zip(slots, answers, strict=True), key=lambda pair: -pair[0]):
            finished.append(Finished(self._jobs[slot], answer, self._table.summary(slot)))
            moved = self._table.remove(slot)
            if moved != slot:
                self._states.move(moved, slot)
                self._jobs[slot] = self._jobs[moved]
            self._jobs.pop()
        finished.reverse()
        return finished
