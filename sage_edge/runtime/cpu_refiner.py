"""Slots on the CPU: many refinements of one plugin, ticked together, each halted by its own energies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sage_edge import native
from sage_edge.runtime.estimate import Estimate
from sage_edge.runtime.program import SlotProgram


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
    """A refinement that ended: its job, its decoded answer and what the run measured."""

    job: Job
    answer: Any
    summary: native.RunSummary


class CpuRefiner:
    """Runs one plugin's slot program with ONNX Runtime and the compiled kernel.

    Live slots are always rows 0 .. live-1 of every array, so that an engine sees one contiguous batch
    without dead rows. A slot that halts is refilled by the next ``admit``; a hole that stays is closed
    by moving the last live row into it.

    Threads: every method belongs to the one thread that ticks; it is also the ring's producer.
    """

    def __init__(
        self,
        program: SlotProgram,
        *,
        slots: int,
        ring: native.Ring,
        plugin_number: int,
        threads: int,
        now_ns: Callable[[], int],
    ) -> None:
        self._program = program
        self._now_ns = now_ns
        self._table = native.SlotTable(slots, ring, plugin_number)
        self._pool = native.ThreadPool(threads)
        self._jobs: list[Job] = []
        shape = (slots, *program.state_shape)
        self._z = np.zeros(shape, np.float32)
        self._best = np.zeros(shape, np.float32)
        self._context = {
            name: np.zeros((slots, *row), np.float32) for name, row in program.context_shapes.items()
        }
        self._step_size = np.full(slots, program.step_size, np.float32)
        self.backend = program.backend
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
        return int(self._table.capacity) - self.live

    def warm_up(self) -> None:
        """Run every engine at both batch sizes, so that no request pays for it and the times are known."""
        for count in (int(self._table.capacity), 1):
            inputs = [self._program.example()] * count
            for _ in range(2):
                times = [self._now_ns()]
                encoded = self._program.encode(inputs)
                times.append(self._now_ns())
                self._program.advance(encoded.z, encoded.context, self._step_size[:count])
                times.append(self._now_ns())
                self._program.decode(encoded.z, inputs)
                times.append(self._now_ns())
        for estimate, start_ns, end_ns in zip(
            (self.encode_time, self.tick_time, self.decode_time), times, times[1:], strict=False
        ):
            estimate.add(end_ns - start_ns)

    def admit(self, jobs: Sequence[Job]) -> list[Finished]:
        """Encode up to ``free`` jobs as one batch and give each a slot.

        Returns:
            The jobs that ended at their initial state, such as those whose deadline leaves no step.
        """
        if not jobs:
            return []
        start_ns = self._now_ns()
        first = self.live
        rows = slice(first, first + len(jobs))
        encoded = self._program.encode([job.x0 for job in jobs])
        self._z[rows] = encoded.z
        for name, array in self._context.items():
            array[rows] = encoded.context[name]
        energies = encoded.energy_terms.astype(np.float64).mean(axis=1)
        now_ns = self._now_ns()
        self.encode_time.add(now_ns - start_ns)
        charge_us = (now_ns - start_ns) / 1e3 / len(jobs)
        ended = []
        for job, energy in zip(jobs, energies, strict=True):
            slot, reason = self._table.admit(
                job.run_id,
                job.policy,
                float(energy),
                now_ns=now_ns,
                margin_ns=self._margin_ns,
                charge_us=charge_us,
            )
            self._jobs.append(job)
            if reason is not None:
                ended.append(slot)
        return self._finish(ended)

    def tick(self) -> list[Finished]:
        """One step of every live slot; returns the refinements that ended before or with it."""
        self.last_tick_ns = self.last_engine_ns = 0
        finished = self._end_cancelled()
        live = self.live
        if live == 0:
            self._decided_ns = None
            return finished
        start_ns = self._now_ns()
        context = {name: array[:live] for name, array in self._context.items()}
        delta, terms = self._program.advance(self._z[:live], context, self._step_size[:live])
        engine_end_ns = self._now_ns()
        self.tick_time.add(engine_end_ns - (self._decided_ns or start_ns))
        self.last_engine_ns = engine_end_ns - start_ns
        reasons = native.latent_step(
            self._table,
            self._z,
            delta,
            self._best,
            step_size=self._step_size,
            lo=self._program.lo,
            hi=self._program.hi,
            energy_terms=terms,
            now_ns=engine_end_ns,
            margin_ns=self._margin_ns,
            tick_us=(engine_end_ns - start_ns) / 1e3,
            pool=self._pool,
        )
        finished += self._finish(np.flatnonzero(reasons).tolist())
        end_ns = self._now_ns()
        self.last_tick_ns = end_ns - start_ns
        self._decided_ns = engine_end_ns if self.live else None
        return finished

    def abort(self, reason: str) -> list[Job]:
        """End every live refinement without an answer; returns their jobs."""
        now_ns = self._now_ns()
        for slot in range(self.live):
            self._table.close(slot, reason, now_ns)
        while self.live:
            self._table.remove(self.live - 1)
        jobs, self._jobs = self._jobs, []
        return jobs

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
        summaries = [self._table.summary(slot) for slot in slots]
        states = np.stack(
            [
                (self._z if summary.best_is_current else self._best)[slot]
                for slot, summary in zip(slots, summaries, strict=True)
            ]
        )
        start_ns = self._now_ns()
        answers = self._program.decode(states, [self._jobs[slot].x0 for slot in slots])
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
                for array in (self._z, self._best, *self._context.values()):
                    array[slot] = array[moved]
                self._jobs[slot] = self._jobs[moved]
            self._jobs.pop()
        finished.reverse()
        return finished
