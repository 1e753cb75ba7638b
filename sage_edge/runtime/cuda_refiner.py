"""Slots on the GPU: the same refiner, whose ticks follow each other without the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sage_edge import native
from sage_edge.errors import DeviceError
from sage_edge.runtime.cpu_refiner import Finished, Job
from sage_edge.runtime.estimate import Estimate
from sage_edge.runtime.program import Encoded

#: How long one ``tick`` waits for somebody to be done before it looks for new jobs and cancelled ones.
PATIENCE_S = 0.002
#: How long ``abort`` waits for the device to heed it.
ABORT_S = 5.0


class DeviceProgram(Protocol):
    """A plugin's refinement for the loop on the device. Stateless, but for the engines it holds.

    The loop applies ``z <- clip(z + step_size * delta, lo, hi)`` itself.
    """

    state_shape: tuple[int, ...]
    context_shapes: Mapping[str, tuple[int, ...]]
    #: float16 or float32: of states, contexts and directions. Energy terms and step sizes are float32.
    dtype: np.dtype[Any]
    energy_terms: int
    lo: float
    hi: float
    step_size: float

    def example(self) -> Any:
        """A prepared input to warm the engines up with."""

    def encode(self, inputs: Sequence[Any]) -> Encoded:
        """The first states of prepared inputs, as host arrays."""

    def bind_step(self, tensors: Mapping[str, Any]) -> Callable[[int], None]:
        """The step engine between arrays on the device, which stay where they are.

        Args:
            tensors: By name ``z``, ``step_size``, each context (read), ``delta`` and ``energy`` (written); of
                one width, with ``__dlpack__`` and ``__cuda_array_interface__``.

        Returns:
            What puts one pass onto a raw CUDA stream. It can be captured once it has run.
        """

    def decode(self, z: NDArray[Any], inputs: Sequence[Any]) -> list[Any]:
        """The answers of n states, as host arrays."""


class DeviceLoop(Protocol):
    """What the refiner needs of ``native.RefineLoop``."""

    z_address: int
    delta_address: int
    step_size_address: int
    energy_terms_address: int
    first_terms_address: int
    context_addresses: list[int]
    mode: str
    mode_reason: str
    ticks: int
    under_way: int

    def prepare(self, body: Callable[[int, int], None], mode: str = ...) -> None:
        """See RefineLoop."""

    def row(self, array: int, row: int) -> int:
        """See RefineLoop."""

    def copy(self, target: int, source: int, size_bytes: int) -> None:
        """See RefineLoop."""

    def wait_copies(self) -> None:
        """See RefineLoop."""

    def hand_in(self, row: int, run_id: int, policy: native.HaltPolicy, *, charge_us: float = ...) -> None:
        """See RefineLoop."""

    def stop(self, row: int, reason: str) -> None:
        """See RefineLoop."""

    def set_margin_ns(self, margin_ns: int) -> None:
        """See RefineLoop."""

    def drive(self, timeout_s: float) -> list[int]:
        """See RefineLoop."""

    def summary_fields(self, row: int) -> tuple[Any, ...]:
        """See RefineLoop."""


def open_loop(
    program: DeviceProgram, ring: native.Ring, *, widths: Sequence[int], rows: int, plugin_number: int
) -> DeviceLoop:
    """A loop on the current CUDA device for a program.

    Args:
        program: Whose states it refines.
        ring: A mapped one.
        widths: Batches to capture, rising; the last one is the number of slots.
        rows: Requests that may be under way.
        plugin_number: Names the plugin in the records.

    Raises:
        ConfigError: The sizes make no sense together.
        DeviceError: CUDA refuses, is not here, or is not built in.
    """
    itemsize = program.dtype.itemsize
    loop: DeviceLoop = native.RefineLoop(
        ring,
        widths=list(widths),
        rows=rows,
        elements=int(np.prod(program.state_shape)),
        half=program.dtype == np.float16,
        terms=program.energy_terms,
        context_bytes=[itemsize * int(np.prod(shape)) for shape in program.context_shapes.values()],
        step_size=program.step_size,
        lo=program.lo,
        hi=program.hi,
        plugin=plugin_number,
    )
    return loop


class CudaRefiner:
    """Hands requests to the loop on the device, and answers those that are done.

    A request has a row of the loop's store from ``admit`` until it is answered; which slot it lives in
    meanwhile is the device's business.

    Threads: every method belongs to one thread, with the loop's device current.
    """

    def __init__(
        self,
        program: DeviceProgram,
        loop: DeviceLoop,
        *,
        widths: Sequence[int],
        rows: int,
        now_ns: Callable[[], int],
        device: str = "cuda:0",
    ) -> None:
        self._program = program
        self._loop = loop
        self._widths = tuple(widths)
        self._free = list(range(rows))
        self._jobs: dict[int, Job] = {}
        self._now_ns = now_ns
        self._device = device
        #: Time from one halting decision to the next, as seen from here.
        self.tick_time = Estimate()
        self.encode_time = Estimate()
        self.decode_time = Estimate()
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
        """How the loop's ticks follow each other, with the reason where it is not the best way."""
        reason = self._loop.mode_reason
        return f"{self._loop.mode} ({reason})" if reason else self._loop.mode

    def warm_up(self) -> None:
        """Run every engine, capture the step engine for every width, and learn how long the others take."""
        steps = {width: self._program.bind_step(self._tensors(width)) for width in self._widths}
        self._loop.prepare(lambda width, stream: steps[width](stream))
        example = self._program.example()
        for _ in range(3):
            times_ns = [self._now_ns()]
            encoded = self._program.encode([example])
            times_ns.append(self._now_ns())
            self._program.decode(encoded.z, [example])
            times_ns.append(self._now_ns())
        self.encode_time.add(times_ns[1] - times_ns[0])
        self.decode_time.add(times_ns[2] - times_ns[1])

    def admit(self, jobs: Sequence[Job]) -> list[Finished]:
        """Encode up to ``free`` jobs as one batch and hand them in; a loop that runs takes them at once.

        Returns:
            Nothing: a job that ends with its first state comes out of ``tick``, as all do.
        """
        if not jobs:
            return []
        start_ns = self._now_ns()
        encoded = self._program.encode([job.x0 for job in jobs])
        rows = [self._free.pop() for _ in jobs]
        for number, row in enumerate(rows):
            self._upload(row, encoded, number)
        self._loop.wait_copies()
        took_ns = self._now_ns() - start_ns
        self.encode_time.add(took_ns)
        for job, row in zip(jobs, rows, strict=True):
            policy = job.policy.replace(rewinds=0)  # the device keeps no earlier states to go back to
            self._loop.hand_in(row, job.run_id, policy, charge_us=took_ns / 1e3 / len(jobs))
            self._jobs[row] = job
        return []

    def tick(self) -> list[Finished]:
        """Let the loop run until somebody is done or a moment has passed; returns who is."""
        self.last_tick_ns = self.last_engine_ns = 0
        if not self._jobs:
            return []
        for row, job in self._jobs.items():
            if job.follower.order is not None:
                self._loop.stop(row, job.follower.order)
        self._loop.set_margin_ns(self.tick_time.bound_ns + self.decode_time.bound_ns)
        start_ns, ticks = self._now_ns(), self._loop.ticks
        rows = self._loop.drive(PATIENCE_S)
        self.last_engine_ns = self._now_ns() - start_ns
        if self._loop.ticks > ticks:
            self.tick_time.add(self.last_engine_ns // (self._loop.ticks - ticks))
        finished = self._finish(rows)
        self.last_tick_ns = self._now_ns() - start_ns
        return finished

    def abort(self, reason: str) -> list[Job]:
        """End every refinement without an answer; returns their jobs."""
        jobs = list(self._jobs.values())
        try:
            for row in self._jobs:
                self._loop.stop(row, reason)
            end_ns = self._now_ns() + int(ABORT_S * 1e9)
            while self._loop.under_way and self._now_ns() < end_ns:
                self._free += self._loop.drive(ABORT_S)
        except DeviceError:
            pass  # a device that has failed runs nothing that could be ended; its rows stay taken
        self._jobs.clear()
        return jobs

    def _tensors(self, width: int) -> dict[str, Any]:
        """The arrays of one width that the step engine reads and writes, by name."""
        loop, program = self._loop, self._program

        def view(address: int, shape: tuple[int, ...], dtype: Any = program.dtype) -> Any:
            return native.TensorView(address, (width, *shape), dtype, device=self._device, owner=loop)

        contexts = zip(program.context_shapes.items(), loop.context_addresses, strict=True)
        return {
            "z": view(loop.z_address, program.state_shape),
            "delta": view(loop.delta_address, program.state_shape),
            "step_size": view(loop.step_size_address, (), np.float32),
            "energy": view(loop.energy_terms_address, (program.energy_terms,), np.float32),
            **{name: view(address, shape) for (name, shape), address in contexts},
        }

    def _upload(self, row: int, encoded: Encoded, number: int) -> None:
        """Put one first state with its context and energy terms into a row of the store."""
        arrays = [encoded.z, *(encoded.context[name] for name in self._program.context_shapes)]
        for index, array in enumerate(arrays):
            self._send(self._loop.row(index, row), array[number], self._program.dtype)
        terms = self._loop.first_terms_address + row * 4 * self._program.energy_terms
        self._send(terms, encoded.energy_terms[number], np.dtype(np.float32))

    def _send(self, address: int, values: NDArray[Any], dtype: np.dtype[Any]) -> None:
        # Pageable memory has been read when the call returns, so the array may go.
        array = np.ascontiguousarray(values, dtype)
        self._loop.copy(address, array.ctypes.data, array.nbytes)

    def _finish(self, rows: Sequence[int]) -> list[Finished]:
        """Decode the best states of rows that are done, as one batch, and free the rows."""
        summaries = {row: native.RunSummary(*self._loop.summary_fields(row)) for row in rows}
        for row, summary in summaries.items():  # the device tells of a run when it is done, not at each step
            self._jobs[row].follower.observe(summary.E, summary.spent_us)
        wanted = [row for row in rows if summaries[row].halt_reason != "cancelled"]
        answers = dict(zip(wanted, self._decode(wanted), strict=True))
        finished = [Finished(self._jobs.pop(row), answers.get(row), summaries[row]) for row in rows]
        self._free += rows
        return finished

    def _decode(self, rows: Sequence[int]) -> list[Any]:
        if not rows:
            return []
        start_ns = self._now_ns()
        best = np.empty((len(rows), *self._program.state_shape), self._program.dtype)
        for state, row in zip(best, rows, strict=True):
            self._loop.copy(state.ctypes.data, self._loop.row(0, row), state.nbytes)
        self._loop.wait_copies()
        answers = self._program.decode(best, [self._jobs[row].x0 for row in rows])
        decode_ns = self._now_ns() - start_ns
        self.decode_time.add(decode_ns)
        self.last_engine_ns += decode_ns
        return answers
