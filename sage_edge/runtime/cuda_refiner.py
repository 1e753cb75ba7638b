"""Slots on the GPU: the same refiner, whose ticks follow each other without the host."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sage_edge import native
from sage_edge.errors import DeviceError, SageError
from sage_edge.irp import Answer, Carried
from sage_edge.irp.engine import Float32
from sage_edge.irp.guard import example_of, size_of
from sage_edge.irp.latent import Begun, energies_of
from sage_edge.irp.recipe import batch_widths
from sage_edge.memory import UNBOUNDED, Account, Kept
from sage_edge.runtime.device_loop import DeviceLoops, DeviceProgram
from sage_edge.runtime.estimate import WARM_UPS, SizedEstimate
from sage_edge.runtime.latent_slots import KEPT_STREAMS, answers_each, begin_each, start_of
from sage_edge.runtime.refiner import Finished, Job, ended, largest, sound

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How long one ``tick`` waits for somebody to be done before it looks for new jobs, orders and budgets.
PATIENCE_S = 0.002
#: How long ``abort`` waits for the device to heed it.
ABORT_S = 5.0
#: Requests that may be on the device for each slot: a slot that is freed is taken with the next tick.
ROWS_PER_SLOT = 2
#: Records that are read at once.
_BATCH = 1024


class CudaRefiner:
    """Hands requests to the loop on the device, and answers those that are done.

    A request has a row of the loop's store from ``admit`` until it is answered; which slot it lives in
    meanwhile is the device's business. Each ``tick`` tells the followers of every state in the mailbox, and
    the loop what they order.

    Threads: every method belongs to one thread, with the loop's device current.
    """

    can_rewind = False  # the device keeps no earlier states but the best one
    apart_since_ns: int | None = None  # its ticks wait for the device

    def __init__(
        self,
        program: DeviceProgram,
        loops: DeviceLoops,
        ring: native.Ring,
        *,
        slots: int,
        plugin_number: int,
        now_ns: Callable[[], int],
        memory: Account = UNBOUNDED,
    ) -> None:
        """Make a refiner with a loop of its own.

        Args:
            program: Whose states it refines.
            loops: Makes the loop.
            ring: The loop's mailbox, from ``loops``.
            slots: Refinements that are stepped together, at most.
            plugin_number: Names the plugin in the records.
            now_ns: Monotonic time, as the loop knows it.
            memory: Where what streams leave counts.

        Raises:
            ConfigError: The sizes make no sense together, or the ring is too small.
            DeviceError: CUDA refuses.
        """
        self.slots = slots
        self.capacity = ROWS_PER_SLOT * slots
        self.has_failed = False
        self._program = program
        self._plugin = program.plugin
        self._widths = batch_widths(slots)
        self._loop = loops.make_loop(
            program, ring, widths=self._widths, rows=self.capacity, plugin_number=plugin_number
        )
        self._device = loops.device
        self._reader = native.RingReader(ring)
        self._lost = 0
        #: Runs whose followers may have missed a state.
        self._overrun: set[int] = set()
        self._free = list(range(self.capacity))
        self._jobs: dict[int, Job] = {}
        self._budgets_us: dict[int, float] = {}
        self._streams: Kept[Carried] = Kept(KEPT_STREAMS, memory)
        #: The first state of each row that belongs to a stream.
        self._firsts: dict[int, Float32] = {}
        self._now_ns = now_ns
        #: From one halting decision to the next, as seen from here, by requests under way alone.
        self.tick_time = SizedEstimate()
        self.encode_time = SizedEstimate()
        self.decode_time = SizedEstimate()
        #: Of the last ``tick``: the whole, and the share in which the device or the decoder worked.
        self.last_tick_ns = 0
        self.last_engine_ns = 0

    @property
    def live(self) -> int:
        """Requests under way, those that wait for a slot included."""
        return len(self._jobs)

    @property
    def free(self) -> int:
        """Requests that ``admit`` can take."""
        return len(self._free)

    @property
    def mode(self) -> str:
        """How the loop's ticks follow each other."""
        return self._loop.mode

    @property
    def mode_reason(self) -> str:
        """Why not in the best way; empty: it is that one."""
        return self._loop.mode_reason

    @property
    def history_bytes(self) -> int:
        """Memory that the best states of all slots take, on the device."""
        return self.slots * int(np.prod(self._plugin.state_shape)) * self._program.dtype.itemsize

    def warm_up(self) -> None:
        """Run every engine, capture the step engine for every width, and learn how long they take."""
        steps = {width: self._program.bind_step(self._tensors(width)) for width in self._widths}
        self._loop.prepare(lambda width, stream: steps[width](stream))
        for width in self._widths:
            self.tick_time.add(self._loop.measure_body_ns(width), self._now_ns(), rows=width)
        example = Job(0, example_of(self._plugin), native.HaltPolicy())
        size = size_of(self._plugin, example.x0)
        for rows in sorted({1, self.slots}, reverse=True):
            for is_warm in (False, *[True] * WARM_UPS):
                start_ns = self._now_ns()
                begun = sound(self._begin([example] * rows))
                encoded_ns = self._now_ns()
                z = np.concatenate([one.encoded.z for one in begun])
                sound(answers_each(self._plugin, z, [example.x0] * rows))
                if is_warm:
                    now_ns = self._now_ns()
                    self.encode_time.add(encoded_ns - start_ns, now_ns, rows=rows, size=size)
                    self.decode_time.add(now_ns - encoded_ns, now_ns, size=size)
        first = begun[0].encoded
        energies_of(self._plugin, first.z, first.context)

    def make_way(self, newcomers: Sequence[Job]) -> list[Finished]:
        """End the runs whose deadline cannot wait until newcomers are encoded and all have taken a step.

        They get their best answer so far. Who halts meanwhile comes out too.
        """
        if not newcomers:
            return []
        now_ns = self._now_ns()
        busy_ns = self.encode_time.bound_ns(now_ns, rows=len(newcomers), size=largest(newcomers))
        busy_ns += self.tick_time.bound_ns(now_ns, rows=self.live + len(newcomers))
        hurried = [row for row, job in self._jobs.items() if self._due_ns(job, now_ns) < now_ns + busy_ns]
        for row in hurried:
            self._loop.stop(row, "timeout")
        finished = []
        while any(row in self._jobs for row in hurried):
            finished += self._drive()
        return finished

    def admit(self, jobs: Sequence[Job]) -> list[Finished]:
        """Encode up to ``free`` jobs and hand them in; a loop that runs takes them with its next tick.

        Returns:
            The jobs that have no first state; one that ends with it comes out of ``tick``, as all do.

        Raises:
            DeviceError: The device has failed before.
        """
        if jobs and self.has_failed:
            raise DeviceError("the loop on the device has failed before: restart the service")
        return [failed for batch in _batches(jobs, self.slots) for failed in self._admit(batch)]

    def tick(self) -> list[Finished]:
        """Let the loop run until somebody is done or a moment has passed; returns who is."""
        self.last_tick_ns = self.last_engine_ns = 0
        if not self._jobs:
            return []
        start_ns = self._now_ns()
        self._obey()
        finished = self._drive()
        self.last_tick_ns = self._now_ns() - start_ns
        return finished

    def peek(self, run_id: int) -> Finished | None:
        """The best answer so far of a run, for which the loop pauses; None when it is in no slot."""
        row = next((row for row, job in self._jobs.items() if job.run_id == run_id), None)
        if row is None:
            return None
        best = self._empty_states(1)
        fields = self._loop.peek(row, best.ctypes.data)
        if fields is None:
            return None
        (found,) = answers_each(self._plugin, best, [self._jobs[row].x0])
        return ended(self._jobs[row], found, native.RunSummary(*fields))

    def abort(self, reason: str) -> dict[int, str]:
        """See Refiner.

        Where the device does not heed that, it has failed.
        """
        reasons = {job.run_id: reason for job in self._jobs.values()}
        try:
            for row in self._jobs:
                self._loop.stop(row, reason)
            end_ns = self._now_ns() + int(ABORT_S * 1e9)
            while self._loop.under_way and self._now_ns() < end_ns:
                for row in self._loop.drive(ABORT_S):
                    summary = native.RunSummary(*self._loop.summary_fields(row))
                    reasons[summary.run_id] = summary.halt_reason or reason
        except Exception:  # whatever the engine or the device raises: nobody may wait for ever
            log.exception("the loop on the device cannot be ended")
            self.has_failed = True
        self.has_failed |= self._loop.under_way > 0
        self._report()
        self._free = list(range(self.capacity))
        self._jobs.clear()
        self._budgets_us.clear()
        self._firsts.clear()
        self._overrun.clear()
        return reasons

    def _tensors(self, width: int) -> dict[str, Any]:
        """The arrays of one width that the step engine reads and writes, by name."""
        loop, program, plugin = self._loop, self._program, self._plugin

        def view(address: int, shape: tuple[int, ...], dtype: Any = program.dtype) -> Any:
            return native.TensorView(address, (width, *shape), dtype, device=self._device, owner=loop)

        contexts = zip(plugin.context_shapes.items(), loop.context_addresses, strict=True)
        return {
            "z": view(loop.z_address, plugin.state_shape),
            "delta": view(loop.delta_address, plugin.state_shape),
            "step_size": view(loop.step_size_address, (), np.float32),
            "energy": view(loop.energy_terms_address, (program.energy_terms,), np.float32),
            **{name: view(address, shape) for (name, shape), address in contexts},
        }

    def _note_no_step(self, job: Job, now_ns: int) -> None:
        """The bounds of a step and of the answer have left a run without any step."""
        least_ns = self.tick_time.least_ns(rows=self.live) + self.decode_time.least_ns(size=job.size)
        may_fit = job.policy.deadline_ns - now_ns >= least_ns
        self.tick_time.deny(now_ns, rows=self.live, may_fit=may_fit)
        self.decode_time.deny(now_ns, size=job.size, may_fit=may_fit)

    def _due_ns(self, job: Job, now_ns: int) -> int:
        """When a run must have ended, so that its answer is decoded by its deadline."""
        return max(job.policy.deadline_ns - self.decode_time.bound_ns(now_ns, size=job.size), 0)

    def _begin(self, jobs: Sequence[Job]) -> list[Begun | SageError]:
        return begin_each(self._plugin, [start_of(job, self._streams) for job in jobs])

    def _admit(self, jobs: Sequence[Job]) -> list[Finished]:
        """Encode jobs as one batch, and hand them in under the budgets that they have now."""
        start_ns = self._now_ns()
        found = list(zip(jobs, self._begin(jobs), strict=True))
        rows: dict[int, Job] = {}
        for job, begun in found:
            if isinstance(begun, Begun):
                row = self._free.pop()
                rows[row] = job
                self._upload(row, begun)
        self._loop.wait_copies()
        now_ns = self._now_ns()
        took_ns = now_ns - start_ns
        self.encode_time.add(took_ns, now_ns, rows=len(jobs), size=largest(jobs))
        for row, job in rows.items():
            policy = job.policy.replace(rewinds=0, deadline_ns=self._due_ns(job, now_ns))
            if (budget_us := job.follower.budget_us) is not None:
                policy = policy.replace(budget_us=budget_us)
                self._budgets_us[row] = budget_us
            charge_us = took_ns / 1e3 / len(jobs)
            self._loop.hand_in(row, job.run_id, policy, charge_us=charge_us, branch=job.branch)
            self._jobs[row] = job
        return [Finished(job, None, None, begun) for job, begun in found if isinstance(begun, SageError)]

    def _obey(self) -> None:
        """Hand orders and moved budgets to the loop."""
        for row, job in self._jobs.items():
            order, budget_us = job.follower.order, job.follower.budget_us
            if order is not None:
                self._loop.stop(row, order)
            elif budget_us is not None and budget_us != self._budgets_us.get(row):
                self._budgets_us[row] = budget_us
                self._loop.set_budget(row, budget_us)

    def _drive(self) -> list[Finished]:
        """Let the loop run for a moment; tells the followers what it reached, and answers who is done."""
        live, start_ns, ticks = self.live, self._now_ns(), self._loop.ticks
        self._loop.set_margin_ns(self.tick_time.bound_ns(start_ns, rows=live))
        rows = self._loop.drive(PATIENCE_S)
        now_ns = self._now_ns()
        self.last_engine_ns += now_ns - start_ns
        if self._loop.ticks > ticks:
            self.tick_time.add((now_ns - start_ns) // (self._loop.ticks - ticks), now_ns, rows=live)
        self._report()
        return [done for batch in _batches(rows, self.slots) for done in self._finish(batch)]

    def _report(self) -> None:
        """Tell the followers of the states in the mailbox: those of every run that is done are there."""
        jobs = {job.run_id: job for job in self._jobs.values()}
        while len(records := self._reader.drain(_BATCH)):
            if self._reader.lost > self._lost:
                log.warning("followers missed %d records of the mailbox", self._reader.lost - self._lost)
                self._lost = self._reader.lost
                self._overrun.update(jobs)
            states = records[(records["flags"] & native.FLAG_CLOSING) == 0]
            for run_id, E, spent_us in states[["run_id", "E", "spent_us"]].tolist():
                if run_id in jobs:
                    jobs[run_id].follower.observe(E, spent_us)

    def _upload(self, row: int, begun: Begun) -> None:
        """Put one first state, a batch of one, with its context and energy terms into a row of the store."""
        z, context, terms = begun.encoded
        arrays = [z, *(context[name] for name in self._plugin.context_shapes)]
        for index, array in enumerate(arrays):
            self._send(self._loop.row(index, row), array[0], self._program.dtype)
        first_terms = self._loop.first_terms_address + row * 4 * self._program.energy_terms
        self._send(first_terms, terms[0], np.dtype(np.float32))
        self._firsts[row] = begun.firsts[0]

    def _send(self, address: int, values: NDArray[Any], dtype: np.dtype[Any]) -> None:
        # Pageable memory has been read when the call returns, so the array may go.
        array = np.ascontiguousarray(values, dtype)
        self._loop.copy(address, array.ctypes.data, array.nbytes)

    def _finish(self, rows: Sequence[int]) -> list[Finished]:
        """Decode the best states of rows that are done, as one batch, and free the rows."""
        summaries = {row: native.RunSummary(*self._loop.summary_fields(row)) for row in rows}
        wanted = [row for row in rows if summaries[row].halt_reason != "cancelled"]
        answers: dict[int, Answer | SageError] = dict(zip(wanted, self._decode(wanted), strict=True))
        for row, summary in summaries.items():
            if summary.run_id in self._overrun:  # what was spent in all must be known
                self._overrun.remove(summary.run_id)
                self._jobs[row].follower.observe(summary.E, summary.spent_us)
        for row, summary in summaries.items():
            if summary.halt_reason == "timeout" and summary.step_idx == 0:
                self._note_no_step(self._jobs[row], self._now_ns())
        finished = [ended(self._jobs.pop(row), answers.get(row), summaries[row]) for row in rows]
        for row in rows:
            self._budgets_us.pop(row, None)
            self._firsts.pop(row, None)
        self._free += rows
        return finished

    def _empty_states(self, count: int) -> NDArray[Any]:
        return np.empty((count, *self._plugin.state_shape), self._program.dtype)

    def _decode(self, rows: Sequence[int]) -> list[Answer | SageError]:
        if not rows:
            return []
        start_ns = self._now_ns()
        best = self._empty_states(len(rows))
        for state, row in zip(best, rows, strict=True):
            self._loop.copy(state.ctypes.data, self._loop.row(0, row), state.nbytes)
        self._loop.wait_copies()
        for state, row in zip(best, rows, strict=True):
            left = Carried(self._firsts[row], state.astype(np.float32))
            self._streams.keep(self._jobs[row].stream_id, left, 2 * left.z.nbytes)
        answers = answers_each(self._plugin, best, [self._jobs[row].x0 for row in rows])
        now_ns = self._now_ns()
        self.decode_time.add(now_ns - start_ns, now_ns, size=largest(self._jobs[row] for row in rows))
        self.last_engine_ns += now_ns - start_ns
        return answers


def _batches(items: Sequence[T], largest: int) -> Iterator[Sequence[T]]:
    """The items in order, at most so many at once."""
    return (items[first : first + largest] for first in range(0, len(items), largest))
