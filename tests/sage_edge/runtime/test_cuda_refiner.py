"""The refiner of the GPU over a loop that keeps the device's contract on the CPU."""

from __future__ import annotations

import ctypes
import time
from collections import deque

import numpy as np
import pytest

from sage_edge import native, refine
from sage_edge.errors import ConfigError, DeviceError
from sage_edge.runtime import CudaRefiner, Job, open_loop
from sage_edge.runtime.cpu_refiner import Unled
from tests.quadratic import QuadraticPlugin

pytestmark = pytest.mark.skipif(not native.BUILT_WITH_CUDA, reason="needs a build with a CUDA compiler")
SIZE = 6


def array_at(address, shape, dtype):
    """Memory as the step engine of a test sees it."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * count).from_address(address), dtype).reshape(shape)


class DeviceQuadratic(QuadraticPlugin):
    """The quadratic plugin with a step between fixed arrays.

    State space: float32 [n].
    """

    dtype = np.dtype(np.float32)
    energy_terms = SIZE

    def bind_step(self, tensors):
        at = {name: array_at(view.pointer, view.shape, view.dtype) for name, view in tensors.items()}

        def enqueue(stream):
            at["delta"][:], at["energy"][:] = self.advance(at["z"], {"target": at["target"]}, at["step_size"])

        return enqueue


class HostLoop:
    """`native.RefineLoop` in ordinary memory: one step of every slot each time it is driven."""

    mode = "launches"
    mode_reason = "a test"

    def __init__(self, program, ring, *, slots, rows):
        self._table = native.SlotTable(slots, ring)
        shape = (slots, SIZE)
        self._z, self._target, self._best = (np.zeros(shape, np.float32) for _ in range(3))
        self._delta, self._terms = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._sizes = np.full(slots, program.step_size, np.float32)
        self._store = [np.zeros((rows, SIZE), np.float32) for _ in range(2)]
        self._first_terms = np.zeros((rows, SIZE), np.float32)
        self._program = program
        self._waiting, self._row_of, self._stops, self._summaries = deque(), [], {}, {}
        self.z_address, self.delta_address = self._z.ctypes.data, self._delta.ctypes.data
        self.step_size_address, self.energy_terms_address = self._sizes.ctypes.data, self._terms.ctypes.data
        self.first_terms_address, self.context_addresses = (
            self._first_terms.ctypes.data,
            [self._target.ctypes.data],
        )
        self.ticks = self.under_way = self.margin_ns = 0
        self.fails = False

    def prepare(self, body, mode="while_graph"):
        self._body = body
        body(len(self._z), 0)

    def row(self, array, row):
        return self._store[array][row].ctypes.data

    def copy(self, target, source, size_bytes):
        ctypes.memmove(target, source, size_bytes)

    def wait_copies(self):
        pass

    def hand_in(self, row, run_id, policy, *, charge_us=0.0):
        self._waiting.append((row, run_id, policy, charge_us))
        self.under_way += 1

    def stop(self, row, reason):
        self._stops[row] = reason

    def set_margin_ns(self, margin_ns):
        self.margin_ns = margin_ns

    def summary_fields(self, row):
        return self._summaries[row]

    def drive(self, timeout_s):
        if self.fails:
            raise DeviceError("cudaStreamQuery: expected success, got a test")
        now = {"now_ns": time.monotonic_ns()}
        while self._waiting and self._table.live < self._table.capacity:
            row, run_id, policy, charge_us = self._waiting.popleft()
            energy = float(self._first_terms[row].mean(dtype=np.float64))
            slot, _ = self._table.admit(run_id, policy, energy, charge_us=charge_us, **now)
            self._z[slot], self._target[slot] = self._store[0][row], self._store[1][row]
            self._row_of.append(row)
        for slot, row in enumerate(self._row_of):
            if row in self._stops and self._table.summary(slot).halt_reason is None:
                self._table.close(slot, self._stops.pop(row), now["now_ns"])
        self._body(len(self._z), 0)
        options = {"step_size": self._sizes, "lo": self._program.lo, "hi": self._program.hi, **now}
        native.latent_step(self._table, self._z, self._delta, self._best, energy_terms=self._terms, **options)
        self.ticks += 1
        return [self._leave(slot) for slot in reversed(range(self._table.live)) if self._has_ended(slot)]

    def _has_ended(self, slot):
        return self._table.summary(slot).halt_reason is not None

    def _leave(self, slot):
        row, summary = self._row_of[slot], self._table.summary(slot)
        self._summaries[row] = tuple(summary)
        self._store[0][row] = (self._z if summary.best_is_current else self._best)[slot]
        last = self._table.remove(slot)
        for array in (self._z, self._best, self._target):
            array[slot] = array[last]
        self._row_of[slot] = self._row_of[last]
        self._row_of.pop()
        self.under_way -= 1
        return row


@pytest.fixture
def setup():
    program = DeviceQuadratic(SIZE)
    ring = native.Ring(1024)
    loop = HostLoop(program, ring, slots=3, rows=5)
    refiner = CudaRefiner(program, loop, widths=[3], rows=5, now_ns=time.monotonic_ns, device="cpu")
    refiner.warm_up()
    return program, refiner, loop, native.RingReader(ring)


def inputs_of(count):
    rng = np.random.default_rng(3)
    return [rng.normal(0, scale, SIZE).astype(np.float32) for scale in np.logspace(-1, 2, count)]


def test_every_job_ends_as_in_the_reference_loop(setup):
    program, refiner, _, reader = setup
    inputs = inputs_of(9)
    waiting = [Job(number, x0, program.halting) for number, x0 in enumerate(inputs)]
    finished = {}
    while waiting or refiner.live:
        jobs, waiting = waiting[: refiner.free], waiting[refiner.free :]
        for done in refiner.admit(jobs) + refiner.tick():
            finished[done.job.run_id] = done
    records = reader.drain(1024)
    for number, x0 in enumerate(inputs):
        reference, done = refine(program, x0), finished[number]
        assert done.summary.halt_reason == reference.halt_reason
        assert done.summary.best_step == reference.best.step_idx
        energies = records["E"][records["run_id"] == number]
        np.testing.assert_allclose(energies, reference.energies, rtol=1e-6)
        np.testing.assert_allclose(done.answer.array, reference.best.x, rtol=1e-6)
    assert (refiner.live, refiner.free) == (0, 5)


def test_rows_limit_what_it_takes(setup):
    program, refiner, _, _ = setup
    refiner.admit([Job(number, x0, program.halting) for number, x0 in enumerate(inputs_of(4))])
    assert (refiner.live, refiner.free) == (4, 1)


def test_a_cancelled_job_leaves_without_an_answer_and_the_others_go_on(setup):
    program, refiner, _, _ = setup
    inputs = inputs_of(3)
    followers = [Unled() for _ in inputs]
    followers[1].order = "cancelled"
    refiner.admit([Job(n, x0, program.halting, followers[n]) for n, x0 in enumerate(inputs)])
    finished = {}
    while refiner.live:
        finished |= {done.job.run_id: done for done in refiner.tick()}
    assert finished[1].answer is None
    assert finished[1].summary.halt_reason == "cancelled"
    assert finished[0].answer is not None
    assert finished[2].answer is not None


def test_abort_ends_everything_in_the_telemetry_too_and_frees_the_rows(setup):
    _, refiner, _, reader = setup
    endless = native.HaltPolicy(eps=0.0, K=2, max_steps=1000)
    refiner.admit([Job(number, x0, endless) for number, x0 in enumerate(inputs_of(5))])
    refiner.tick()
    assert {job.run_id for job in refiner.abort("error")} == {0, 1, 2, 3, 4}
    assert (refiner.live, refiner.free) == (0, 5)
    last = {record["run_id"]: native.HALT_REASONS[record["halt_reason"]] for record in reader.drain(1024)}
    assert set(last.values()) == {"error"}


def test_abort_survives_a_device_that_has_failed(setup):
    program, refiner, loop, _ = setup
    refiner.admit([Job(0, inputs_of(1)[0], program.halting)])
    loop.fails = True
    with pytest.raises(DeviceError):
        refiner.tick()
    assert [job.run_id for job in refiner.abort("error")] == [0]
    assert refiner.live == 0


def test_the_loop_is_told_what_a_deadline_must_leave(setup):
    program, refiner, loop, _ = setup
    refiner.admit([Job(0, inputs_of(1)[0], program.halting)])
    refiner.tick()
    refiner.tick()
    assert loop.margin_ns >= refiner.decode_time.mean_ns


def test_it_says_how_its_ticks_follow_each_other_and_why(setup):
    assert setup[1].mode == "launches (a test)"


def test_a_loop_needs_a_mapped_ring_and_sizes_that_fit():
    with pytest.raises(ConfigError, match="at least 8 rows, got 4"):
        open_loop(DeviceQuadratic(SIZE), native.Ring(64), widths=[2, 8], rows=4, plugin_number=0)
