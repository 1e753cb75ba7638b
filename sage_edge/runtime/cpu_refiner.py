"""Slots on the CPU: many refinements of one plugin, ticked together, each halted by its own energies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sage_edge import native
from sage_edge.errors import SageError
from sage_edge.irp import Answer
from sage_edge.runtime.estimate import WARM_UPS, SizedEstimate
from sage_edge.runtime.refiner import Finished, Job, ended, largest, sound
from sage_edge.runtime.slots import First, SlotStates

#: A full batch of examples that takes longer than this is not tried at the start.
_LONG_WARM_UP_NS = 2_000_000_000


class CpuRefiner:
    """Keeps the slots of one plugin full, ticks them, and halts and answers each.

    Live slots are always rows 0 .. live-1, so that an engine sees one contiguous batch without dead
    rows. A slot that halts is refilled by the next ``admit``; a hole that stays is closed by moving the
    last live row into it.

    Args:
        states: The slots.
        example: Makes a prepared input to warm up with.
        ring: Where every state is published.
        plugin_number: Names the plugin in the records.
        now_ns: Monotonic time.
        mode_reason: Why the loop is here, where the engines are on another device.
        size_of: How large a prepared input is, in the plugin's own unit.

    Threads: every method belongs to the one thread that ticks; it is also the ring's producer.
    """

    mode = "host"
    has_failed = False

    def __init__(
        self,
        states: SlotStates,
        example: Callable[[], Any],
        *,
        ring: native.Ring,
        plugin_number: int,
        now_ns: Callable[[], int],
        mode_reason: str = "",
        size_of: Callable[[Any], float] = lambda _: 1.0,
    ) -> None:
        self._states = states
        self._example = example
        self._size_of = size_of
        self.mode_reason = mode_reason
        self._now_ns = now_ns
        self._table = native.SlotTable(states.capacity, ring, plugin_number)
        self._jobs: list[Job] = []
        self._budgets_us: list[float | None] = []
        #: From one halting decision to the next, refills left out, by live slots; and of a batch of refills.
        self.tick_time = SizedEstimate()
        self.encode_time = SizedEstimate()
        self.decode_time = SizedEstimate()
        #: Of the last tick: the whole, and the share that step and decoder took; 0 when nothing was live.
        self.last_tick_ns = 0
        self.last_engine_ns = 0
        self._decided_ns: int | None = None

    @property
    def slots(self) -> int:
        """Slots, live or free."""
        return self._states.capacity

    @property
    def capacity(self) -> int:
        """The slots: nobody waits beside them."""
        return self._states.capacity

    @property
    def live(self) -> int:
        """Slots in use."""
        return len(self._jobs)

    @property
    def free(self) -> int:
        """Slots that ``admit`` can fill."""
        return self.capacity - self.live

    @property
    def can_rewind(self) -> bool:
        """Whether an earlier state can save a run that went astray."""
        return self._states.can_rewind

    @property
    def history_bytes(self) -> int:
        """Memory that the best and the earlier states of all slots take."""
        return self._states.history_bytes

    def make_way(self, newcomers: Sequence[Job]) -> list[Finished]:
        """End the runs whose deadline cannot wait until newcomers are encoded and all have taken a step.

        They get their best answer so far.
        """
        if not newcomers:
            return []
        now_ns = self._now_ns()
        all_jobs = [*self._jobs, *newcomers]
        busy_ns = self.encode_time.bound_ns(now_ns, rows=len(newcomers), size=largest(newcomers))
        busy_ns += self.tick_time.bound_ns(now_ns, rows=len(all_jobs), size=largest(all_jobs))
        hurried = [
            slot for slot in range(self.live) if self._due_ns(self._jobs[slot], now_ns) < now_ns + busy_ns
        ]
        return self._close(hurried, "timeout")

    def admit(self, jobs: Sequence[Job]) -> list[Finished]:
        """Encode up to ``free`` jobs as one batch and give each a slot.

        Returns:
            The jobs that ended at their initial state, such as those whose deadline leaves no step, and those
            that failed before they had one.
        """
        if not jobs:
            return []
        start_ns = self._now_ns()
        firsts = self._states.load(self.live, jobs)
        now_ns = self._now_ns()
        self.encode_time.add(now_ns - start_ns, now_ns, rows=len(jobs), size=largest(jobs))
        if self._decided_ns is not None:
            self._decided_ns += now_ns - start_ns
        begun = [(job, first) for job, first in zip(jobs, firsts, strict=True) if isinstance(first, First)]
        failed = [
            Finished(job, None, None, first)
            for job, first in zip(jobs, firsts, strict=True)
            if isinstance(first, SageError)
        ]
        if not begun:
            return failed
        rows, size = self.live + len(begun), largest([*self._jobs, *(job for job, _ in begun)])
        margin_ns = self.tick_time.bound_ns(now_ns, rows=rows, size=size)
        charge_us = (now_ns - start_ns) / 1e3 / len(jobs)
        at_end = []
        for job, first in begun:
            slot, reason = self._table.admit(
                job.run_id,
                job.policy.replace(deadline_ns=self._due_ns(job, now_ns)),
                first.E,
                now_ns=now_ns,
                margin_ns=margin_ns,
                charge_us=charge_us,
                feasible=first.feasible,
                gap=first.gap,
                halt=first.halt,
                branch=job.branch,
            )
            self._jobs.append(job)
            self._budgets_us.append(None)
            job.follower.observe(first.E, charge_us)
            if reason is not None:
                at_end.append(slot)
            if reason == "timeout":
                self._note_no_step(job, now_ns, rows=rows, size=size)
        return failed + self._finish(at_end)

    def tick(self) -> list[Finished]:
        """One step of every live slot; returns the refinements that ended before or with it."""
        self.last_tick_ns = self.last_engine_ns = 0
        finished = self._obey()
        if self.live == 0:
            self._decided_ns = None
            return finished
        live, size, start_ns = self.live, largest(self._jobs), self._now_ns()
        failed = self._states.advance(live)
        decided_ns = self._now_ns()
        self.last_engine_ns = decided_ns - start_ns
        self.tick_time.add(decided_ns - (self._decided_ns or start_ns), decided_ns, rows=live, size=size)
        if failed:
            finished += self._fail(failed)
        if self.live:
            finished += self._settle(decided_ns)
        self.last_tick_ns = self._now_ns() - start_ns
        self._decided_ns = decided_ns if self.live else None
        return finished

    def _settle(self, decided_ns: int) -> list[Finished]:
        """Take the steps, publish the new states and answer the runs that end with them."""
        reasons = self._states.settle(
            self._table,
            now_ns=decided_ns,
            margin_ns=self.tick_time.bound_ns(decided_ns, rows=self.live, size=largest(self._jobs)),
            tick_us=self.last_engine_ns / 1e3,
        )
        self._rewind()
        self._report()
        return self._finish(np.flatnonzero(reasons).tolist())

    def peek(self, run_id: int) -> Finished | None:
        """The best answer so far of a live run, which goes on; None when it is not live."""
        slot = next((slot for slot, job in enumerate(self._jobs) if job.run_id == run_id), None)
        if slot is None:
            return None
        summary = self._table.summary(slot)
        (found,) = self._states.answers([slot], [summary.best_is_current])
        return ended(self._jobs[slot], found, summary)

    def abort(self, reason: str) -> dict[int, str]:
        """See Refiner."""
        now_ns = self._now_ns()
        reasons = {}
        for slot, job in enumerate(self._jobs):
            halted_by = self._table.summary(slot).halt_reason
            if halted_by is None:
                self._table.close(slot, reason, now_ns)
            reasons[job.run_id] = halted_by or reason
        self._jobs, self._budgets_us = [], []
        for slot in reversed(range(len(reasons))):
            self._states.remove(slot, self._table.remove(slot))
        return reasons

    def warm_up(self) -> None:
        """Run everything once with the plugin's example, and learn how long it takes; see Refiner.

        A plugin whose steps are slow is warmed up alone: how long more of them take is guessed from that.
        """
        example = self._example()
        self._try_batch(example, 1)  # the first run pays for what is made once
        alone = self._time_batches(example, 1)
        if self.capacity > 1 and sum(alone[0]) * self.capacity < _LONG_WARM_UP_NS:
            self._try_batch(example, self.capacity)
            self._learn(self._time_batches(example, self.capacity), example, self.capacity)
        self._learn(alone, example, 1)

    def _time_batches(self, example: Any, rows: int) -> list[tuple[int, int, int]]:
        """What ``_try_batch`` takes, time and again; once where that is long."""
        taken = [self._try_batch(example, rows)]
        while len(taken) < WARM_UPS and sum(map(sum, taken)) < _LONG_WARM_UP_NS // 8:
            taken.append(self._try_batch(example, rows))
        return taken

    def _learn(self, taken: list[tuple[int, int, int]], example: Any, rows: int) -> None:
        size, now_ns = self._size_of(example), self._now_ns()
        for encode_ns, tick_ns, decode_ns in taken:
            self.encode_time.add(encode_ns, now_ns, rows=rows, size=size)
            self.tick_time.add(tick_ns, now_ns, rows=rows, size=size)
            self.decode_time.add(decode_ns, now_ns, size=size)

    def _try_batch(self, example: Any, rows: int) -> tuple[int, int, int]:
        """Nanoseconds of encoding, stepping and decoding so many examples at once, in free slots."""
        jobs = [Job(0, example, native.HaltPolicy()) for _ in range(rows)]
        start_ns = self._now_ns()
        firsts = self._states.load(0, jobs)
        encoded_ns = self._now_ns()
        sound(firsts)
        failed = self._states.advance(rows)
        stepped_ns = self._now_ns()
        sound(list(failed.values()))
        sound(self._states.answers(range(rows), [True] * rows))
        return encoded_ns - start_ns, stepped_ns - encoded_ns, self._now_ns() - stepped_ns

    def _note_no_step(self, job: Job, now_ns: int, *, rows: int, size: float) -> None:
        """The bounds of a step and of the answer have left a run without any step."""
        least_ns = self.tick_time.least_ns(rows=rows, size=size) + self.decode_time.least_ns(size=job.size)
        may_fit = job.policy.deadline_ns - now_ns >= least_ns
        self.tick_time.deny(now_ns, rows=rows, size=size, may_fit=may_fit)
        self.decode_time.deny(now_ns, size=job.size, may_fit=may_fit)

    def _due_ns(self, job: Job, now_ns: int) -> int:
        """When a run must have ended, so that its answer is decoded by its deadline."""
        return max(job.policy.deadline_ns - self.decode_time.bound_ns(now_ns, size=job.size), 0)

    def _obey(self) -> list[Finished]:
        """Hand moved budgets to the runs and end those that were ordered to."""
        ordered: dict[str, list[int]] = {}
        for slot, job in enumerate(self._jobs):
            order, budget_us = job.follower.order, job.follower.budget_us
            if order is None and budget_us is not None and budget_us != self._budgets_us[slot]:
                self._budgets_us[slot] = budget_us
                order = None if self._table.set_budget(slot, budget_us) else "budget"
            if order is not None:
                ordered.setdefault(order, []).append(slot)
        finished = []
        for reason, slots in ordered.items():
            finished += self._close(slots, reason)
        return finished

    def _close(self, slots: list[int], reason: str) -> list[Finished]:
        """End runs between two steps; a cancelled one gets no answer."""
        now_ns = self._now_ns()
        for slot in slots:
            self._table.close(slot, reason, now_ns)
        return self._remove(dict.fromkeys(slots)) if reason == "cancelled" else self._finish(slots)

    def _rewind(self) -> None:
        """Take the runs that went astray back to an earlier state."""
        for slot in self._table.astray():
            job, summary = self._jobs[slot], self._table.summary(slot)
            restored = self._states.rewind(slot, summary.rewinds, self._table)
            self._table.rewind(
                slot,
                restored.E,
                feasible=restored.feasible,
                branch=min(summary.branch + job.branches, 255),
                now_ns=self._now_ns(),
            )

    def _report(self) -> None:
        """Tell the followers of the new states."""
        energies, spent_us = self._table.energies().tolist(), self._table.spent_us().tolist()
        for job, E, spent in zip(self._jobs, energies, spent_us, strict=True):
            job.follower.observe(E, spent)

    def _finish(self, slots: list[int]) -> list[Finished]:
        """Decode the best states of ended slots as one batch and free the slots."""
        if not slots:
            return []
        is_current = [self._table.summary(slot).best_is_current for slot in slots]
        start_ns = self._now_ns()
        answers = self._states.answers(slots, is_current)
        now_ns = self._now_ns()
        self.decode_time.add(now_ns - start_ns, now_ns, size=largest(self._jobs[slot] for slot in slots))
        self.last_engine_ns += now_ns - start_ns
        for slot, current in zip(slots, is_current, strict=True):
            self._states.leave(slot, current)
        return self._remove(dict(zip(slots, answers, strict=True)))

    def _fail(self, failed: Mapping[int, SageError]) -> list[Finished]:
        """End the runs whose step failed; the others go on."""
        now_ns = self._now_ns()
        for slot in failed:
            self._table.close(slot, "error", now_ns)
        return self._remove(failed)

    def _remove(self, slots: Mapping[int, Answer | SageError | None]) -> list[Finished]:
        """Free ended slots, from the last so that no row that is still needed moves."""
        finished = []
        for slot in sorted(slots, reverse=True):
            finished.append(ended(self._jobs[slot], slots[slot], self._table.summary(slot)))
            last = self._table.remove(slot)
            self._states.remove(slot, last)
            self._jobs[slot], self._budgets_us[slot] = self._jobs[last], self._budgets_us[last]
            self._jobs.pop()
            self._budgets_us.pop()
        finished.reverse()
        return finished
