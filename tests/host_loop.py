"""The loop of the device on the CPU: what ``native.RefineLoop`` promises, one tick each time it is driven.

A plain twin for the refiner's tests: the same queue, slots, control words and mailbox, without a GPU.
"""

from __future__ import annotations

import ctypes

import numpy as np

from sage_edge import native

ALIGNMENT_BYTES = 256


def array_at(address, shape, dtype):
    """Memory as the step engine of a test sees it."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * count).from_address(address), dtype).reshape(shape)


def aligned_zeros(shape, dtype):
    """An array that begins where CUDA's would."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + ALIGNMENT_BYTES, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT_BYTES
    return memory[first : first + size].view(dtype).reshape(shape)


class HostLoop:
    """One loop.

    Attributes:
        stream: Where the step engine is enqueued.
        fault: Set to an error that every ``drive`` raises from then on.
        most_live: Slots that were ever live together.
    """

    mode = "launches"
    mode_reason = "a test"

    def __init__(self, program, ring, *, widths, rows, plugin_number, now_ns):
        assert program.dtype == np.float32, "the twin knows float32 alone"
        plugin = program.plugin
        slots, terms = widths[-1], program.energy_terms
        count = slots + 1  # one more, for who ends before it has a slot
        self._table = native.SlotTable(count, ring, plugin_number)
        self._plugin, self._widths, self._now_ns = plugin, widths, now_ns
        self.stream = Stream()
        shapes = [plugin.state_shape, *plugin.context_shapes.values()]
        self._slots = [aligned_zeros((count, *shape), np.float32) for shape in shapes]
        self._store = [np.zeros((rows, *shape), np.float32) for shape in shapes]
        self._best = np.zeros_like(self._slots[0])
        self._delta = aligned_zeros(self._best.shape, np.float32)
        self._terms = aligned_zeros((slots, terms), np.float32)
        self._first_terms = np.zeros((rows, terms), np.float32)
        self._sizes = aligned_zeros(count, np.float32)
        self._sizes[:] = plugin.step_size
        self._entries, self._stops, self._budgets_us, self._summaries = {}, {}, {}, {}
        self._queue, self._row_of, self._done = [], [], []
        self._margin_ns = self.ticks = self.under_way = self.most_live = 0
        self.fault = None

    z_address = property(lambda self: self._slots[0].ctypes.data)
    delta_address = property(lambda self: self._delta.ctypes.data)
    step_size_address = property(lambda self: self._sizes.ctypes.data)
    energy_terms_address = property(lambda self: self._terms.ctypes.data)
    first_terms_address = property(lambda self: self._first_terms.ctypes.data)
    context_addresses = property(lambda self: [array.ctypes.data for array in self._slots[1:]])

    @property
    def arrays(self):
        """All that a step engine may be bound to."""
        return [*self._slots, self._delta, self._terms, self._sizes]

    def prepare(self, body, mode="while_graph"):
        self._body = body
        for width in self._widths:
            self._pass(width)

    def measure_body_ns(self, width):
        start_ns = self._now_ns()
        self._pass(width)
        return self._now_ns() - start_ns

    def _pass(self, width):
        self._body(width, self.stream.handle)
        self.stream.synchronize()

    def row(self, array, row):
        return self._store[array][row].ctypes.data

    def copy(self, target, source, size_bytes):
        ctypes.memmove(target, source, size_bytes)

    def wait_copies(self):
        pass

    def hand_in(self, row, run_id, policy, *, charge_us=0.0, branch=0):
        assert row not in self._entries, "the row is taken"
        self._stops.pop(row, None)
        self._entries[row] = (run_id, policy, charge_us, branch)
        self._budgets_us[row] = policy.budget_us
        self._queue.append(row)
        self.under_way += 1

    def set_budget(self, row, budget_us):
        self._budgets_us[row] = budget_us

    def stop(self, row, reason):
        self._stops[row] = reason

    def set_margin_ns(self, margin_ns):
        self._margin_ns = margin_ns

    def summary_fields(self, row):
        return self._summaries[row]

    def peek(self, row, target):
        if row not in self._row_of:
            return None
        slot = self._row_of.index(row)
        summary = self._table.summary(slot)
        best = (self._slots[0] if summary.best_is_current else self._best)[slot]
        ctypes.memmove(target, best.ctypes.data, best.nbytes)
        return tuple(summary)

    def drive(self, timeout_s):
        """Stops, then fills slots, then steps all, until somebody is done; one step at the most."""
        if self.fault is not None:
            raise self.fault
        now_ns = self._now_ns()
        for slot, row in enumerate(self._row_of):
            if row in self._stops:
                self._table.close(slot, self._stops[row], now_ns)
        self._leave()
        self._deal(now_ns)
        if self._row_of and not self._done:
            self._step()
            self._leave()
        done, self._done = self._done, []
        return done

    def _deal(self, now_ns):
        waiting, self._queue = self._queue, []
        for row in waiting:
            has_slot = len(self._row_of) < self._widths[-1]
            is_over = row in self._stops or self._entries[row][1].deadline_ns - self._margin_ns <= now_ns
            if not has_slot and not is_over:
                self._queue.append(row)
            else:
                self._open(row, now_ns)

    def _open(self, row, now_ns):
        """Let a run begin, which may end at once."""
        run_id, policy, charge_us, branch = self._entries[row]
        policy = policy.replace(budget_us=self._budgets_us[row])
        energy = float(self._first_terms[row].mean(dtype=np.float64))
        now = {"now_ns": now_ns, "margin_ns": self._margin_ns}
        slot, reason = self._table.admit(run_id, policy, energy, charge_us=charge_us, branch=branch, **now)
        if reason is None and row in self._stops:
            self._table.close(slot, self._stops[row], now_ns)
        if self._table.summary(slot).halt_reason is None:
            for slots, store in zip(self._slots, self._store, strict=True):
                slots[slot] = store[row]
            self._row_of.append(row)
            return
        self._note_end(row, slot)
        self._table.remove(slot)

    def _step(self):
        live, start_ns = len(self._row_of), self._now_ns()
        self.most_live = max(self.most_live, live)
        self._pass(next(width for width in self._widths if width >= live))
        self.ticks += 1
        for slot, row in enumerate(self._row_of):
            self._table.set_budget(slot, self._budgets_us[row])
        now_ns = self._now_ns()
        native.latent_step(
            self._table,
            self._slots[0],
            self._delta,
            self._best,
            step_size=self._sizes,
            lo=self._plugin.lo,
            hi=self._plugin.hi,
            energy_terms=self._terms,
            now_ns=now_ns,
            margin_ns=self._margin_ns,
            tick_us=(now_ns - start_ns) / 1e3,
        )

    def _leave(self):
        """Bring the best states of ended runs back to their rows."""
        ended = [s for s in reversed(range(len(self._row_of))) if self._table.summary(s).halt_reason]
        for slot in ended:
            row, summary = self._row_of[slot], self._table.summary(slot)
            self._note_end(row, slot)
            self._store[0][row] = (self._slots[0] if summary.best_is_current else self._best)[slot]
            last = self._table.remove(slot)
            for array in (*self._slots, self._best):
                array[slot] = array[last]
            self._row_of[slot] = self._row_of[last]
            self._row_of.pop()

    def _note_end(self, row, slot):
        self._summaries[row] = tuple(self._table.summary(slot))
        for kept in (self._entries, self._stops, self._budgets_us):
            kept.pop(row, None)
        self._done.append(row)
        self.under_way -= 1


class Stream:
    """Where work is done as soon as it is enqueued."""

    handle = 0

    def synchronize(self):
        pass


class HostLoops:
    """Makes loops on the CPU, and keeps them in ``made``."""

    device = "cpu"

    def __init__(self, now_ns, why_not=""):
        self._now_ns, self._why_not = now_ns, why_not
        self.made = []

    def why_not(self):
        return self._why_not

    def make_ring(self, records):
        return native.Ring(records)

    def make_stream(self, loop):
        """The stream on which a loop will run its engine."""
        return Stream()

    def make_loop(self, program, ring, *, widths, rows, plugin_number):
        loop = HostLoop(
            program, ring, widths=widths, rows=rows, plugin_number=plugin_number, now_ns=self._now_ns
        )
        loop.stream = self.make_stream(loop)
        self.made.append(loop)
        return loop
