"""The loop on a real GPU, held against the CPU's own latent_step. Run by `make gpu-check`.

The engine takes a quarter: delta = -z / 2, step size 1/2. Every operation is exact or rounded once, so that
torch, NumPy and the kernels must agree in every bit.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from sage_edge import native

if native.device_count() == 0:
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)
torch = pytest.importorskip("torch", reason="needs torch with CUDA as the step engine")

pytestmark = pytest.mark.gpu
MODES = ("while_graph", "host_graphs", "launches")
TERMS = 3
POLICY = {"eps": 2e-3, "K": 2, "max_steps": 40}


def first_states(count, elements, dtype):
    rng = np.random.default_rng(elements)
    scale = 10.0 ** rng.uniform(-3, 0, (count, 1))
    return (rng.uniform(-1, 1, (count, elements)) * scale).astype(dtype)


def terms_of(z):
    return np.abs(z[:, :TERMS]).astype(np.float32)


class Loop:
    """A prepared RefineLoop with the halving engine, and the rows of its store."""

    def __init__(self, elements, *, half=False, mode="while_graph", widths=(2, 8), rows=16):
        self.dtype = np.dtype(np.float16 if half else np.float32)
        self.elements = elements
        self.ring = native.mapped_ring(4096)
        self.reader = native.RingReader(self.ring)
        self.rows = rows
        self.loop = native.RefineLoop(
            self.ring,
            widths=list(widths),
            rows=rows,
            elements=elements,
            half=half,
            terms=TERMS,
            context_bytes=[8],
            step_size=0.5,
            lo=-2.0,
            hi=2.0,
        )
        slots = widths[-1]
        self.z = self.tensor(self.loop.z_address, (slots, elements), self.dtype)
        self.delta = self.tensor(self.loop.delta_address, (slots, elements), self.dtype)
        self.terms = self.tensor(self.loop.energy_terms_address, (slots, TERMS), np.float32)
        self.next = torch.empty_like(self.z)
        self.loop.prepare(self.body, mode)

    def tensor(self, address, shape, dtype):
        return torch.from_dlpack(native.TensorView(address, shape, dtype, device="cuda:0", owner=self.loop))

    def body(self, width, stream):
        with torch.cuda.stream(torch.cuda.ExternalStream(stream)):
            torch.mul(self.z[:width], -0.5, out=self.delta[:width])
            torch.mul(self.z[:width], 0.75, out=self.next[:width])
            self.terms[:width].copy_(self.next[:width, :TERMS])
            self.terms[:width].abs_()

    def hand_in(self, row, run_id, state, policy):
        state = np.ascontiguousarray(state)
        terms = np.ascontiguousarray(terms_of(state[None])[0])
        self.loop.copy(self.loop.row(0, row), state.ctypes.data, state.nbytes)
        self.loop.copy(self.loop.first_terms_address + row * terms.nbytes, terms.ctypes.data, terms.nbytes)
        self.loop.wait_copies()
        self.loop.hand_in(row, run_id, policy)

    def state(self, row):
        out = np.empty(self.elements, self.dtype)
        self.loop.copy(out.ctypes.data, self.loop.row(0, row), out.nbytes)
        self.loop.wait_copies()
        return out

    def refine(self, states, policy):
        """Best states and summaries, all requests being kept under way as rows allow."""
        free, waiting = list(range(self.rows)), list(enumerate(states))
        of_row, best, summaries = {}, {}, {}
        while waiting or of_row:
            while free and waiting:
                run_id, state = waiting.pop(0)
                of_row[row := free.pop()] = run_id
                self.hand_in(row, run_id, state, policy)
            done = self.loop.drive(10.0)
            assert done, "nothing was done within ten seconds"
            for row in done:
                run_id = of_row.pop(row)
                best[run_id], summaries[run_id] = (
                    self.state(row),
                    native.RunSummary(*self.loop.summary_fields(row)),
                )
                free.append(row)
        records = self.reader.drain(4096)
        assert self.reader.lost == 0
        count = range(len(states))
        return [best[i] for i in count], [summaries[i] for i in count], records


def on_the_cpu(state, run_id, policy):
    """Best state and energies of one float32 state by the CPU's kernel."""
    ring = native.Ring(256)
    reader = native.RingReader(ring)
    table = native.SlotTable(1, ring)
    z = state[None].copy()
    best = z.copy()
    _, reason = table.admit(run_id, policy, float(terms_of(z).mean(dtype=np.float64)), now_ns=0)
    step_size = np.full(1, 0.5, np.float32)
    options = {"step_size": step_size, "lo": -2.0, "hi": 2.0, "now_ns": 0}
    while reason is None:
        terms = terms_of(z * np.float32(0.75))
        native.latent_step(table, z, z * np.float32(-0.5), best, energy_terms=terms, **options)
        reason = table.summary(0).halt_reason
    summary = table.summary(0)
    return (z if summary.best_is_current else best)[0], summary, reader.drain(256)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("elements", [4, 4097, 16384])
def test_every_request_ends_as_on_the_cpu_in_every_bit(mode, elements):
    policy = native.HaltPolicy(**POLICY)
    states = first_states(40, elements, np.float32)
    best, summaries, records = Loop(elements, mode=mode).refine(states, policy)
    np.testing.assert_array_equal(records["seq"], np.arange(len(records)))
    for run_id, state in enumerate(states):
        expected, summary, lines = on_the_cpu(state, run_id, policy)
        assert best[run_id].tobytes() == expected.tobytes()
        for name in ("step_idx", "E", "E0", "best_E", "best_step", "halt_reason", "monotonicity_ratio"):
            assert getattr(summaries[run_id], name) == getattr(summary, name), name
        mine = records[records["run_id"] == run_id]
        for name in ("E", "dE", "step_idx", "halt_reason", "flags", "best_E"):
            np.testing.assert_array_equal(mine[name], lines[name], err_msg=name)
        np.testing.assert_allclose(mine["residual"], lines["residual"], rtol=1e-5)


@pytest.mark.parametrize("elements", [8, 4099])
def test_half_precision_rounds_once_per_step(elements):
    states = first_states(10, elements, np.float16)
    best, summaries, _ = Loop(elements, half=True).refine(
        states, native.HaltPolicy(eps=0.0, K=2, max_steps=5)
    )
    for state, got, summary in zip(states, best, summaries, strict=True):
        expected = state
        for _ in range(summary.best_step):
            delta = (expected * np.float16(-0.5)).astype(np.float32)
            expected = (expected.astype(np.float32) + np.float32(0.5) * delta).astype(np.float16)
        assert got.tobytes() == expected.tobytes()


def test_the_same_requests_give_the_same_bits_again():
    policy = native.HaltPolicy(**POLICY)
    states = first_states(30, 20000, np.float32)
    first, again = (Loop(20000).refine(states, policy) for _ in range(2))
    assert [a.tobytes() for a in first[0]] == [b.tobytes() for b in again[0]]
    assert [(s.E, s.step_idx, s.residual) for s in first[1]] == [
        (s.E, s.step_idx, s.residual) for s in again[1]
    ]


@pytest.mark.parametrize("mode", MODES)
def test_a_deadline_is_kept_by_the_clock_of_the_device(mode):
    loop = Loop(64, mode=mode)
    deadline_ns = time.monotonic_ns() + 50_000_000
    policy = native.HaltPolicy(eps=0.0, K=2, max_steps=1 << 30, deadline_ns=deadline_ns)
    loop.hand_in(0, 1, np.ones(64, np.float32), policy)
    assert loop.loop.drive(5.0) == [0]
    assert native.RunSummary(*loop.loop.summary_fields(0)).halt_reason == "timeout"
    end_ns = int(loop.reader.drain(4096)["time_ns"][-1])
    assert abs(end_ns - deadline_ns) < 5_000_000  # a tick, and what the clocks may be apart


@pytest.mark.parametrize("mode", MODES)
def test_a_run_can_be_stopped_and_its_limit_changed_while_it_goes_on(mode):
    loop = Loop(64, mode=mode)
    endless = native.HaltPolicy(eps=0.0, K=2, max_steps=1 << 30)
    for row in (0, 1):
        loop.hand_in(row, row, np.ones(64, np.float32), endless)
    assert loop.loop.drive(0.02) == []
    assert loop.loop.live == 2
    loop.loop.stop(0, "cancelled")
    loop.loop.limit(1, 1, 1 << 62)
    done = set()
    while len(done) < 2:
        done |= set(loop.loop.drive(5.0))
    reasons = [native.RunSummary(*loop.loop.summary_fields(row)).halt_reason for row in (0, 1)]
    assert reasons == ["cancelled", "max_steps"]


@pytest.mark.parametrize("mode", MODES)
def test_budgets_peeks_and_those_who_wait_reach_a_loop_that_runs(mode):
    loop = Loop(64, mode=mode, widths=(1,), rows=3)
    endless = native.HaltPolicy(eps=0.0, K=2, max_steps=1 << 30)
    for row in range(3):
        loop.hand_in(row, row, np.full(64, 0.5, np.float32), endless)
    assert loop.loop.drive(0.02) == []
    best = np.empty(64, np.float32)
    summary = native.RunSummary(*loop.loop.peek(0, best.ctypes.data))
    assert summary.halt_reason is None
    # Rounded once per step, and to nothing in the end.
    np.testing.assert_allclose(best, 0.5 * 0.75**summary.best_step, rtol=1e-3, atol=1e-30)
    assert loop.loop.peek(1, best.ctypes.data) is None
    loop.loop.stop(1, "cancelled")  # it waits: there is one slot
    assert loop.loop.drive(5.0) == [1]
    loop.loop.set_budget(0, 0.0)
    assert loop.loop.drive(5.0) == [0]
    assert native.RunSummary(*loop.loop.summary_fields(0)).halt_reason == "budget"


def test_the_wanted_mode_is_kept_or_the_reason_given():
    for mode in MODES:
        loop = Loop(64, mode=mode).loop
        assert (loop.mode == mode) == (loop.mode_reason == "")
