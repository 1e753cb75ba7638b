"""The mailbox as Python sees it: layout, order, overruns, and many threads at once."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from sage_edge.errors import ConfigError, ShapeError
from sage_edge.native import HALT_REASONS, RECORD_DTYPE, Ring, RingReader

LAYOUT = {
    "seq": ("u8", 0),
    "run_id": ("u8", 8),
    "time_ns": ("i8", 16),
    "E": ("f4", 24),
    "dE": ("f4", 28),
    "E0": ("f4", 32),
    "best_E": ("f4", 36),
    "residual": ("f4", 40),
    "monotonicity_ratio": ("f4", 44),
    "dE_variance": ("f4", 48),
    "spent_us": ("f4", 52),
    "step_idx": ("u4", 56),
    "branch": ("u1", 60),
    "plugin": ("u1", 61),
    "halt_reason": ("u1", 62),
    "flags": ("u1", 63),
}


def records(first: int, count: int) -> np.ndarray:
    """Records whose fields follow from their number, so that a torn one shows."""
    number = np.arange(first, first + count)
    made = np.zeros(count, RECORD_DTYPE)
    for field in ("run_id", "time_ns", "E", "E0", "best_E", "spent_us", "step_idx"):
        made[field] = number
    return made


def is_whole(batch: np.ndarray) -> bool:
    expected = np.concatenate([records(int(seq), 1) for seq in batch["seq"]]) if len(batch) else batch
    return all(np.array_equal(batch[name], expected[name]) for name in LAYOUT if name != "seq")


def test_a_record_has_the_layout_of_the_wire():
    assert RECORD_DTYPE.itemsize == 64
    assert {name: (field[0], field[1]) for name, field in RECORD_DTYPE.fields.items()} == {
        name: (np.dtype(kind), offset) for name, (kind, offset) in LAYOUT.items()
    }


def test_the_reasons_keep_their_codes():
    assert HALT_REASONS == (
        None,
        "slope<eps",
        "feasible",
        "max_steps",
        "timeout",
        "confidence",
        "diverged",
        "budget",
        "global_halt",
        "cancelled",
        "error",
    )


@given(published=st.integers(0, 100), exponent=st.integers(0, 5))
def test_a_late_reader_gets_the_newest_records_and_counts_the_rest(published, exponent):
    ring = Ring(2**exponent)
    ring.push_many(records(0, published))
    reader = RingReader(ring)
    batch = reader.drain(1000)
    kept = min(published, ring.capacity)
    assert batch["seq"].tolist() == list(range(published - kept, published))
    assert is_whole(batch)
    assert reader.lost == published - kept
    assert ring.published == published


class RingMachine(RuleBasedStateMachine):
    """Any mix of pushes and drains by several readers loses nothing uncounted."""

    readers = Bundle("readers")

    def __init__(self):
        super().__init__()
        self.ring = Ring(8)
        self.read: dict[RingReader, int] = {}

    @rule(target=readers)
    def open(self):
        reader = RingReader(self.ring)
        self.read[reader] = 0
        return reader

    @rule(count=st.integers(0, 30))
    def push(self, count):
        self.ring.push_many(records(self.ring.published, count))

    @rule(reader=readers, at_most=st.integers(0, 12))
    def drain(self, reader, at_most):
        before = reader.cursor
        batch = reader.drain(at_most)
        assert len(batch) <= at_most
        assert is_whole(batch)
        assert (np.diff(batch["seq"].astype(np.int64)) == 1).all()
        assert all(batch["seq"] >= before)
        self.read[reader] += len(batch)

    @rule(reader=readers)
    def catch_up(self, reader):
        while len(batch := reader.wait(3, 0.0)):
            self.read[reader] += len(batch)
        assert self.read[reader] + reader.lost == self.ring.published

    @invariant()
    def every_ticket_before_a_cursor_was_read_or_lost(self):
        for reader, read in self.read.items():
            assert read + reader.lost == reader.cursor


TestRing = RingMachine.TestCase


@pytest.mark.parametrize(("capacity", "batch"), [(16, 1000), (4096, 7)])
def test_readers_on_other_threads_lose_nothing_uncounted(capacity, batch):
    published = 20_000
    ring = Ring(capacity)
    tallies = []

    def read():
        reader = RingReader(ring)
        read, whole = 0, True
        while read + reader.lost < published:
            got = reader.wait(1000, 10.0)
            whole = whole and is_whole(got)
            read += len(got)
        tallies.append((whole, read + reader.lost))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for first in range(0, published, batch):
        ring.push_many(records(first, min(batch, published - first)))
    for thread in threads:
        thread.join()
    assert tallies == [(True, published)] * 2


def test_a_wait_ends_as_soon_as_a_record_is_there():
    ring = Ring(8)
    reader = RingReader(ring)
    pusher = threading.Thread(target=lambda: ring.push(records(0, 1)))
    start = time.monotonic()
    pusher.start()
    assert len(reader.wait(10, 60.0)) == 1
    assert time.monotonic() - start < 30
    pusher.join()


def test_a_wait_for_nothing_ends_at_its_timeout_with_an_empty_array():
    batch = RingReader(Ring(8)).wait(10, 0.001)
    assert batch.dtype == RECORD_DTYPE
    assert batch.shape == (0,)


def test_a_push_takes_one_record_with_or_without_an_axis_and_gives_it_a_ticket():
    ring = Ring(8)
    ring.push(records(5, 1))
    ring.push(records(6, 1).reshape(()))
    assert RingReader(ring).drain(8)[["seq", "run_id"]].tolist() == [(0, 5), (1, 6)]


def test_a_reader_keeps_its_ring_alive():
    reader = RingReader(Ring(8))
    assert len(reader.drain(8)) == 0


@pytest.mark.parametrize("capacity", [0, 3, 12])
def test_a_capacity_that_is_no_power_of_two_is_refused(capacity):
    with pytest.raises(ConfigError, match=f"expected a power of two, got {capacity}"):
        Ring(capacity)


def test_other_arrays_are_refused():
    ring = Ring(8)
    with pytest.raises(ShapeError, match="expected one record of RECORD_DTYPE"):
        ring.push(records(0, 2))
    with pytest.raises(
        ShapeError, match=r"records: expected C-contiguous .* \[>= 0 records\], got float64 \(3,\)"
    ):
        ring.push_many(np.zeros(3))
    with pytest.raises(ShapeError, match="not C-contiguous"):
        ring.push_many(records(0, 6)[::2])
    assert ring.published == 0


def test_a_negative_limit_or_timeout_is_refused():
    reader = RingReader(Ring(8))
    with pytest.raises(ConfigError, match="max_records"):
        reader.drain(-1)
    with pytest.raises(ConfigError, match="timeout_s"):
        reader.wait(1, float("nan"))
