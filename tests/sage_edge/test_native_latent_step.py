"""The latent step against its twin in double precision, and what must not change its bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.errors import ConfigError, ShapeError
from sage_edge.native import HALT_REASONS, HaltPolicy, Ring, RingReader, SlotTable, ThreadPool, latent_step
from tests.oracles import latent_step as oracle

PATIENT = HaltPolicy(eps=0.0, divergence_factor=math.inf)
RUNNING = 0
LARGE = (3, 300, 335)  # enough elements for the pool to be used


class Bench:
    """A slot table, its arrays with random states, and a tick with defaults."""

    def __init__(self, live: int, shape: tuple[int, ...], *, capacity: int | None = None, seed: int = 0):
        capacity = live if capacity is None else capacity
        random = np.random.default_rng(seed)
        self.ring = Ring(1024)
        self.slots = SlotTable(capacity, self.ring)
        self.z = random.standard_normal((capacity, *shape), np.float32)
        self.delta = random.standard_normal((capacity, *shape), np.float32)
        self.best = np.full((capacity, *shape), -7, np.float32)
        self.step_size = np.full(capacity, 0.5, np.float32)
        self.energy = np.full((capacity, 1), 0.5, np.float32)
        for run_id in range(live):
            self.slots.admit(run_id, PATIENT, 1.0, now_ns=0)

    def step(self, **changes):
        tick = {"step_size": self.step_size, "lo": -2.0, "hi": 2.0, "energy_terms": self.energy, "now_ns": 0}
        return latent_step(self.slots, self.z, self.delta, self.best, **(tick | changes))

    def answer(self, slot: int) -> np.ndarray:
        return (self.z if self.slots.summary(slot).best_is_current else self.best)[slot]


@settings(max_examples=40, deadline=None)
@given(
    live=st.integers(1, 4),
    spare=st.integers(0, 2),
    elements=st.one_of(st.integers(1, 70), st.sampled_from([4095, 4096, 4097, 8191, 12345])),
    terms=st.sampled_from([1, 5, 9]),
    seed=st.integers(0, 2**32),
)
def test_a_step_agrees_with_its_twin(live, spare, elements, terms, seed):
    bench = Bench(live, (elements,), capacity=live + spare, seed=seed)
    random = np.random.default_rng(seed + 1)
    bench.step_size = random.random(live + spare, np.float32)
    energy = random.random((live, terms), np.float32)
    before = bench.z.copy()

    reasons = bench.step(energy_terms=energy)

    assert reasons.tolist() == [RUNNING] * live
    for slot in range(live):
        expected = oracle.latent_step(
            before[slot],
            bench.delta[slot],
            step_size=float(bench.step_size[slot]),
            lo=-2.0,
            hi=2.0,
            energy_terms=energy[slot],
        )
        summary = bench.slots.summary(slot)
        # Three roundings of numbers below 8.
        np.testing.assert_allclose(bench.z[slot], expected.z, rtol=0, atol=2e-6)
        # Squares of rounded float32 changes, added in float32 over at most 256 terms.
        np.testing.assert_allclose(summary.residual, expected.residual, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(summary.E, expected.E, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(bench.z[live:], before[live:])


@settings(max_examples=60, deadline=None)
@given(
    energies=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan]), min_size=1, max_size=8),
    E0=st.sampled_from([0.15, 0.35]),
)
def test_the_answer_is_the_best_state_seen(energies, E0):
    bench = Bench(0, (37,), capacity=1)
    bench.slots.admit(9, PATIENT, E0, now_ns=0)
    best_E, best_state = E0, bench.z[0].copy()
    for E in energies:
        reason = bench.step(energy_terms=np.array([[E]], np.float32))[0]
        energy = bench.slots.summary(0).E
        if energy < best_E:
            best_E, best_state = energy, bench.z[0].copy()
        np.testing.assert_array_equal(bench.answer(0), best_state)
        assert bench.slots.summary(0).best_E == best_E
        if reason != RUNNING:
            break
    assert HALT_REASONS[reason] == ("diverged" if math.isnan(E) else None)


def outcome(slot: int, threads: int | None) -> tuple[bytes, bytes]:
    """State and records of one run, beside other runs in the slots below."""
    lone = Bench(1, LARGE, seed=5)
    bench = Bench(0, LARGE, capacity=slot + 1, seed=6)
    bench.z[slot], bench.delta[slot] = lone.z[0], lone.delta[0]
    for other in range(slot):
        bench.slots.admit(100 + other, PATIENT, 1.0, now_ns=0)
    bench.slots.admit(7, PATIENT, 1.0, now_ns=0)
    pool = None if threads is None else ThreadPool(threads)
    for _ in range(3):
        bench.step(pool=pool)
    mine = RingReader(bench.ring).drain(100)
    mine = mine[mine["run_id"] == 7]
    mine["seq"] = 0
    return bench.z[slot].tobytes(), mine.tobytes()


@pytest.mark.parametrize("threads", [None, 1, 2, 3])
@pytest.mark.parametrize("slot", [0, 3])
def test_the_bits_do_not_depend_on_threads_slots_neighbours_or_the_run(slot, threads):
    assert outcome(slot, threads) == outcome(0, None)


def test_states_are_clamped_and_a_nan_is_not_hidden_by_it():
    bench = Bench(2, (5,))
    bench.delta[0] = [100, -100, 0, 0, 0]
    bench.delta[1, 2] = math.nan
    reasons = bench.step(lo=-1.0, hi=1.0)
    assert bench.z[0].max() == 1.0
    assert bench.z[0].min() == -1.0
    assert math.isnan(bench.z[1, 2])
    assert [HALT_REASONS[code] for code in reasons] == [None, "diverged"]


@pytest.mark.parametrize("energy", [0.2, math.nan])
@pytest.mark.parametrize("delta", [0.1, math.nan])
def test_a_nan_ends_the_run_and_the_best_earlier_state_survives(delta, energy):
    bench = Bench(1, (6000,))
    good = bench.z[0].copy()
    bench.delta[0, -1] = delta
    (reason,) = bench.step(energy_terms=np.array([[energy]], np.float32))
    diverged = math.isnan(delta) or math.isnan(energy)
    assert HALT_REASONS[reason] == ("diverged" if diverged else None)
    if diverged:
        np.testing.assert_array_equal(bench.answer(0), good)
        assert bench.slots.summary(0).best_E == 1.0


def test_a_tick_is_charged_to_the_runs_that_took_it():
    bench = Bench(4, (3,))
    bench.slots.close(1, "cancelled", 0)
    reasons = bench.step(tick_us=30.0)
    assert [HALT_REASONS[code] for code in reasons] == [None, "cancelled", None, None]
    assert [bench.slots.summary(slot).spent_us for slot in range(4)] == [10.0, 0.0, 10.0, 10.0]


def test_deadline_margin_and_budget_reach_the_rule():
    policies = [
        PATIENT.replace(deadline_ns=1000),
        PATIENT.replace(budget_us=15.0),
        PATIENT.replace(target_E_norm=0.5),
        PATIENT.replace(max_steps=1),
    ]
    bench = Bench(0, (3,), capacity=4)
    for run_id, policy in enumerate(policies):
        bench.slots.admit(run_id, policy, 1.0, now_ns=0)
    reasons = bench.step(now_ns=900, margin_ns=100, tick_us=40.0)
    assert [HALT_REASONS[code] for code in reasons] == ["timeout", "budget", "confidence", "max_steps"]


def test_a_delta_for_the_live_rows_alone_will_do():
    whole, short = Bench(2, (9,), capacity=4), Bench(2, (9,), capacity=4)
    whole.step()
    short.delta = short.delta[:2]
    short.step()
    np.testing.assert_array_equal(short.z, whole.z)


def test_every_running_run_publishes_its_state_in_slot_order():
    bench = Bench(3, (3,))
    bench.step(now_ns=77)
    published = RingReader(bench.ring).drain(10)[3:]
    assert published["run_id"].tolist() == [0, 1, 2]
    assert published["time_ns"].tolist() == [77] * 3
    assert published["step_idx"].tolist() == [1] * 3
    assert published["dE"].tolist() == [-0.5] * 3
    assert published["E0"].tolist() == [1.0] * 3
    assert published["flags"].tolist() == [0b101] * 3


def test_a_table_without_live_slots_steps_nothing():
    bench = Bench(0, (3,), capacity=2)
    before = bench.z.copy()
    assert bench.step().shape == (0,)
    np.testing.assert_array_equal(bench.z, before)


f32 = np.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"z": np.zeros((3, 4), f32)},
            r"z: expected C-contiguous float32 \[2 slots, ...\], got float32 \(3, 4\)",
        ),
        ({"z": np.zeros((2, 4))}, r"z: expected .*, got float64 \(2, 4\)"),
        ({"z": np.zeros((2, 8), f32)[:, ::2]}, r"got float32 \(2, 4\), not C-contiguous"),
        ({"z": np.broadcast_to(f32(0), (2, 4)).copy().T.copy().T}, "not C-contiguous"),
        (
            {"z": np.zeros((2, 0), f32), "delta": np.zeros((2, 0), f32), "best": np.zeros((2, 0), f32)},
            "at least one",
        ),
        (
            {"delta": np.zeros((2, 5), f32)},
            r"delta: expected .* \[>= 2 live slots, 4\], got float32 \(2, 5\)",
        ),
        ({"delta": np.zeros((1, 4), f32)}, r"delta: expected .*, got float32 \(1, 4\)"),
        ({"best": np.zeros((2, 2, 2), f32)}, r"best: expected .*, got float32 \(2, 2, 2\)"),
        ({"step_size": np.zeros(3, f32)}, r"step_size: expected C-contiguous float32 \[2 slots\]"),
        ({"step_size": np.zeros(2)}, r"step_size: .*, got float64"),
        ({"energy_terms": np.zeros((1, 3), f32)}, r"energy_terms: .* \[>= 2 live slots, >= 1 terms\]"),
        ({"energy_terms": np.zeros(2, f32)}, r"energy_terms: .*, got float32 \(2,\)"),
        ({"energy_terms": np.zeros((2, 0), f32)}, r"energy_terms: .* >= 1 terms\], got float32 \(2, 0\)"),
    ],
)
def test_an_array_that_does_not_fit_is_refused_and_nothing_moves(changes, message):
    bench = Bench(2, (4,))
    before = bench.z.copy()
    arrays = {"z": bench.z, "delta": bench.delta, "best": bench.best, "step_size": bench.step_size}
    tick = {"lo": -1.0, "hi": 1.0, "energy_terms": bench.energy, "now_ns": 0}
    with pytest.raises(ShapeError, match=message):
        latent_step(bench.slots, **(arrays | tick | changes))
    np.testing.assert_array_equal(bench.z, before)
    assert bench.ring.published == 2


def test_arrays_that_share_memory_or_cannot_be_written_are_refused():
    bench = Bench(2, (4,))
    tick = {"step_size": bench.step_size, "lo": -1, "hi": 1, "energy_terms": bench.energy, "now_ns": 0}
    for arrays in [(bench.z, bench.z, bench.best), (bench.z, bench.delta, bench.z)]:
        with pytest.raises(ShapeError, match="share memory"):
            latent_step(bench.slots, *arrays, **tick)
    bench.z.flags.writeable = False
    with pytest.raises(ShapeError, match="z: expected a writeable array"):
        latent_step(bench.slots, bench.z, bench.delta, bench.best, **tick)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lo": 1.0, "hi": -1.0}, "expected lo <= hi"),
        ({"lo": math.nan}, "expected lo <= hi"),
        ({"tick_us": -1.0}, "tick_us"),
        ({"margin_ns": -1}, "margin_ns"),
    ],
)
def test_a_number_out_of_range_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Bench(1, (3,)).step(**changes)


@pytest.mark.parametrize("threads", [0, 257])
def test_a_pool_has_one_to_256_threads(threads):
    with pytest.raises(ConfigError, match=f"expected 1 to 256, got {threads}"):
        ThreadPool(threads)
