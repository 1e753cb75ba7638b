"""Slots on the CPU: many refinements of one plugin, ticked together, each halted by its own energies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sage_edge import native
from sage_edge.errors import SageError
from sage_edge.irp import Answer
from sage_edge.runtime.estimate import WARM_UPS, SizedEstimate, bucket_of
from sage_edge.runtime.refiner import Finished, Job, ended, largest, sound
from sage_edge.runtime.slots import First, SlotStates

#: A full batch of examples that takes longer than this is not tried at the start.
_LONG_WARM_UP_NS = 2_000_000_000
#: A tick that leaves steps under way ends within about this.
_SOON_NS = 4_000_000
NOTHING: Mapping[int, SageError] = MappingProxyType({})


@dataclass(slots=True)
class _Live:
    """A run in a slot.

    Attributes:
        job: What is to be refined.
        decided_ns: When it had its last halting decision; refills since are left out.
        budget_us: The limit that was handed to the run last.
        charge_us: Its share of the compute since its last state.
        is_waiting: Whether the last tick left its step under way.
    """

    job: Job
    decided_ns: int
    budget_us: float | None = None
    charge_us: float = 0.0
    is_waiting: bool = False


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
        self._rows: list[_Live] = []
        #: From one halting decision of a run to its next, refills left out, by live slots and the size of its
        #: input; and of a batch of refills.
        self.tick_time = SizedEstimate()
        self.encode_time = SizedEstimate()
        self.decode_time = SizedEstimate()
        #: Of the last tick: the whole, and the share that step and decoder took; 0 when nothing was live.
        self.last_tick_ns = 0
        self.last_engine_ns = 0

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
        return len(self._rows)

    @property
    def free(self) -> int:
        """Slots that ``admit`` can fill."""
        return self.capacity - self.live - self._states.left_behind

    @property
    def apart_since_ns(self) -> int | None:
        """When the oldest step that is under way beside the ticks was begun, if there is one."""
        return self._states.apart_since_ns

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
        now_ns, rows = self._now_ns(), self.live + len(newcomers)
        encode_ns = self.encode_time.bound_ns(now_ns, rows=len(newcomers), size=largest(newcomers))

        def is_hurried(row: _Live) -> bool:
            # A step that is under way goes on meanwhile, and its run is ended when its time is over.
            step_ns = 0 if row.is_waiting else self.tick_time.bound_ns(now_ns, rows=rows, size=row.job.size)
            return self._due_ns(row.job, now_ns) < now_ns + encode_ns + step_ns

        hurried = [slot for slot, row in enumerate(self._rows) if is_hurried(row)]
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
        for row in self._rows:
            if not row.is_waiting:
                row.decided_ns += now_ns - start_ns
        begun = [(job, first) for job, first in zip(jobs, firsts, strict=True) if isinstance(first, First)]
        failed = [
            Finished(job, None, None, first)
            for job, first in zip(jobs, firsts, strict=True)
            if isinstance(first, SageError)
        ]
        if not begun:
            return failed
        rows = self.live + len(begun)
        charge_us = (now_ns - start_ns) / 1e3 / len(jobs)
        at_end = []
        for job, first in begun:
            slot, reason = self._table.admit(
                job.run_id,
                job.policy.replace(deadline_ns=self._due_ns(job, now_ns)),
                first.E,
                now_ns=now_ns,
                margin_ns=self.tick_time.bound_ns(now_ns, rows=rows, size=job.size),
                charge_us=charge_us,
                feasible=first.feasible,
                gap=first.gap,
                halt=first.halt,
                branch=job.branch,
            )
            self._rows.append(_Live(job, now_ns))
            job.follower.observe(first.E, charge_us)
            if reason is not None:
                at_end.append(slot)
            if reason == "timeout":
                self._note_no_step(job, now_ns, rows=rows)
        return failed + self._finish(at_end)

    def tick(self) -> list[Finished]:
        """A step of live slots, of all where steps are short; returns what ended before or with it."""
        self.last_tick_ns = self.last_engine_ns = 0
        finished = self._obey() + self._end_overdue()
        if self.live == 0 and self.free:
            return finished
        start_ns = self._now_ns()
        stepped = self._states.advance(self.live, self._now_ns)
        decided_ns = self._now_ns()
        for slot, row in enumerate(self._rows):
            row.charge_us += (decided_ns - start_ns) / 1e3 / self.live
            row.is_waiting = slot not in stepped.failed
        self.last_engine_ns = decided_ns - start_ns
        for slot in stepped.failed:
            self._table.close(slot, "error", decided_ns)
        finished += self._finish(self._settle(stepped.rows, decided_ns), stepped.failed)
        if stepped.rows:
            self.last_tick_ns = self._now_ns() - start_ns
        return finished

    def _settle(self, slots: Sequence[int], decided_ns: int) -> list[int]:
        """Take steps and publish the new states; returns the slots whose runs end with them."""
        rows = [self._rows[slot] for slot in slots]
        self._learn_ticks(rows, decided_ns)
        ended = self._states.settle(
            self._table,
            slots,
            now_ns=decided_ns,
            margins_ns=[
                self.tick_time.bound_ns(decided_ns, rows=self.live, size=row.job.size) for row in rows
            ],
            charges_us=[row.charge_us for row in rows],
        )
        for row in rows:
            row.decided_ns, row.charge_us, row.is_waiting = decided_ns, 0.0, False
        self._rewind()
        self._report(slots)
        return ended

    def _learn_ticks(self, rows: Sequence[_Live], decided_ns: int) -> None:
        """What it took from one decision to the next: once for each size."""
        taken_ns: dict[int, int] = {}
        for row in rows:
            size = bucket_of(row.job.size)
            taken_ns[size] = max(taken_ns.get(size, 0), decided_ns - row.decided_ns)
        for size, duration_ns in taken_ns.items():
            self.tick_time.add(duration_ns, decided_ns, rows=self.live, size=2.0**size)

    def _end_overdue(self) -> list[Finished]:
        """End the runs that cannot wait any longer for a step that is under way."""
        soon_ns = self._now_ns() + _SOON_NS
        return self._close(
            [
                slot
                for slot, row in enumerate(self._rows)
                if row.is_waiting and self._due_ns(row.job, soon_ns) < soon_ns
            ],
            "timeout",
        )

    def peek(self, run_id: int) -> Finished | None:
        """The best answer so far of a live run, which goes on; None when it is not live."""
        slot = next((slot for slot, row in enumerate(self._rows) if row.job.run_id == run_id), None)
        if slot is None:
            return None
        summary = self._table.summary(slot)
        (found,) = self._states.answers([slot], [summary.best_is_current])
        return ended(self._rows[slot].job, found, summary)

    def abort(self, reason: str) -> dict[int, str]:
        """See Refiner."""
        now_ns = self._now_ns()
        reasons = {}
        for slot, row in enumerate(self._rows):
            halted_by = self._table.summary(slot).halt_reason
            if halted_by is None:
                self._table.close(slot, reason, now_ns)
            reasons[row.job.run_id] = halted_by or reason
        self._rows = []
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
        stepped = self._states.advance(rows, self._now_ns)
        while len(stepped.rows) + len(stepped.failed) < rows:
            stepped = self._states.advance(rows, self._now_ns)
        stepped_ns = self._now_ns()
        sound(list(stepped.failed.values()))
        sound(self._states.answers(range(rows), [True] * rows))
        return encoded_ns - start_ns, stepped_ns - encoded_ns, self._now_ns() - stepped_ns

    def _note_no_step(self, job: Job, now_ns: int, *, rows: int) -> None:
        """The bounds of a step and of the answer have left a run without any step."""
        least_ns = self.tick_time.least_ns(rows=rows, size=job.size) + self.decode_time.least_ns(
            size=job.size
        )
        may_fit = job.policy.deadline_ns - now_ns >= least_ns
        self.tick_time.deny(now_ns, rows=rows, size=job.size, may_fit=may_fit)
        self.decode_time.deny(now_ns, size=job.size, may_fit=may_fit)

    def _due_ns(self, job: Job, now_ns: int) -> int:
        """When a run must have ended, so that its answer is decoded by its deadline."""
        return max(job.policy.deadline_ns - self.decode_time.bound_ns(now_ns, size=job.size), 0)

    def _obey(self) -> list[Finished]:
        """Hand moved budgets to the runs and end those that were ordered to."""
        ordered: dict[str, list[int]] = {}
        for slot, row in enumerate(self._rows):
            order, budget_us = row.job.follower.order, row.job.follower.budget_us
            if order is None and budget_us is not None and budget_us != row.budget_us:
                row.budget_us = budget_us
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
            job, summary = self._rows[slot].job, self._table.summary(slot)
            restored = self._states.rewind(slot, summary.rewinds, self._table)
            self._table.rewind(
                slot,
                restored.E,
                feasible=restored.feasible,
                branch=min(summary.branch + job.branches, 255),
                now_ns=self._now_ns(),
            )

    def _report(self, slots: Sequence[int]) -> None:
        """Tell the followers of new states."""
        energies, spent_us = self._table.energies().tolist(), self._table.spent_us().tolist()
        for slot in slots:
            self._rows[slot].job.follower.observe(energies[slot], spent_us[slot])

    def _finish(self, slots: Sequence[int], failed: Mapping[int, SageError] = NOTHING) -> list[Finished]:
        """Decode the best states of ended slots as one batch; free them, and those whose step has failed."""
        if not slots:
            return self._remove(failed)
        is_current = [self._table.summary(slot).best_is_current for slot in slots]
        start_ns = self._now_ns()
        answers = self._states.answers(slots, is_current)
        now_ns = self._now_ns()
        self.decode_time.add(now_ns - start_ns, now_ns, size=largest(self._rows[slot].job for slot in slots))
        self.last_engine_ns += now_ns - start_ns
        for slot, current in zip(slots, is_current, strict=True):
            self._states.leave(slot, current)
        return self._remove({**failed, **dict(zip(slots, answers, strict=True))})

    def _remove(self, slots: Mapping[int, Answer | SageError | None]) -> list[Finished]:
        """Free ended slots, from the last so that no row that is still needed moves."""
        finished = []
        for slot in sorted(slots, reverse=True):
            finished.append(ended(self._rows[slot].job, slots[slot], self._table.summary(slot)))
            last = self._table.remove(slot)
            self._states.remove(slot, last)
            self._rows[slot] = self._rows[last]
            self._rows.pop()
        finished.reverse()
        return finished
