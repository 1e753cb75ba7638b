"""Loops on a device: what runs there, what makes them, and what a refiner needs of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from sage_edge import native
from sage_edge.errors import EngineError
from sage_edge.irp import Engine, LatentPlugin
from sage_edge.irp.engine import Enqueue


class DeviceProgram:
    """A latent plugin whose step engine can be bound to the arrays of a loop on the device.

    First states, energies and answers go through host arrays; the step stays on the device.

    Attributes:
        plugin: Whose states.
        dtype: Of states, contexts and directions, float16 or float32; the rest is float32.
        energy_terms: Numbers whose mean is an energy.
    """

    def __init__(self, plugin: LatentPlugin, step: Engine) -> None:
        """Take a plugin and its step engine.

        Raises:
            EngineError: The engine's ends are not those of a step, or of types that a loop cannot have.
        """
        self.plugin = plugin
        self._step = step
        wanted = {"z", "step_size", "delta", "energy", *plugin.context_shapes}
        if set(step.ends) != wanted:
            raise EngineError(f"step engine: expected {sorted(wanted)}, got {sorted(step.ends)}")
        self.dtype = step.ends["z"].dtype
        self.energy_terms = int(np.prod(step.ends["energy"].shape))
        for name, spec in step.ends.items():
            expected = np.dtype(np.float32) if name in ("step_size", "energy") else self.dtype
            if spec.dtype != expected or self.dtype not in (np.float16, np.float32):
                raise EngineError(f"step engine: {name}: expected {expected}, got {spec.dtype}")

    def bind_step(self, tensors: Mapping[str, Any]) -> Enqueue:
        """The step engine between arrays on the device, which stay where they are.

        Args:
            tensors: By name ``z``, ``step_size``, each context (read), ``delta`` and ``energy`` (written).

        Raises:
            EngineError: The engine cannot be bound to them.
        """
        return self._step.bind(tensors)


class DeviceLoop(Protocol):
    """What the refiner needs of ``native.RefineLoop``, which see."""

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
        """Run and capture the step engine for each width."""

    def measure_body_ns(self, width: int) -> int:
        """How long one pass of the step engine takes."""

    def row(self, array: int, row: int) -> int:
        """Address of a row of the store."""

    def copy(self, target: int, source: int, size_bytes: int) -> None:
        """Enqueue a copy."""

    def wait_copies(self) -> None:
        """Wait for the copies."""

    def hand_in(
        self, row: int, run_id: int, policy: native.HaltPolicy, *, charge_us: float = ..., branch: int = ...
    ) -> None:
        """Hand a request in."""

    def set_budget(self, row: int, budget_us: float) -> None:
        """Change what may be charged to a request."""

    def stop(self, row: int, reason: str) -> None:
        """End a request before its next step."""

    def set_margin_ns(self, margin_ns: int) -> None:
        """Tell how long finishing an answer takes."""

    def drive(self, timeout_s: float) -> list[int]:
        """Keep the loop going; the rows that are done."""

    def peek(self, row: int, target: int) -> tuple[Any, ...] | None:
        """Copy the best state so far of a request."""

    def summary_fields(self, row: int) -> tuple[Any, ...]:
        """How a request has ended."""


class DeviceLoops(Protocol):
    """What makes loops on one device, and the mailboxes that they write."""

    #: As DLPack names it, such as "cuda:0".
    device: str

    def why_not(self) -> str:
        """Why there can be no loop here; empty: there can."""

    def make_ring(self, records: int) -> native.Ring:
        """A mailbox that a loop can write."""

    def make_loop(
        self,
        program: DeviceProgram,
        ring: native.Ring,
        *,
        widths: Sequence[int],
        rows: int,
        plugin_number: int,
    ) -> DeviceLoop:
        """A loop for a program.

        Args:
            program: Whose states it refines.
            ring: From ``make_ring``.
            widths: Batches to capture, rising; the last one is the number of slots.
            rows: Requests that may be under way.
            plugin_number: Names the plugin in the records.

        Raises:
            ConfigError: The sizes make no sense together.
            DeviceError: CUDA refuses.
        """


class CudaLoops:
    """Loops on the first CUDA device."""

    device = "cuda:0"

    def why_not(self) -> str:
        """The build has no CUDA, or CUDA's runtime finds no device that it can use."""
        if not native.BUILT_WITH_CUDA:
            return "this build is without CUDA: install the CUDA toolkit and run `SAGE_CUDA=ON make build`"
        return native.cuda_refusal()

    def make_ring(self, records: int) -> native.Ring:
        """Page-locked memory that both sides see."""
        ring: native.Ring = native.mapped_ring(records)
        return ring

    def make_loop(
        self,
        program: DeviceProgram,
        ring: native.Ring,
        *,
        widths: Sequence[int],
        rows: int,
        plugin_number: int,
    ) -> DeviceLoop:
        """See DeviceLoops."""
        itemsize, plugin = program.dtype.itemsize, program.plugin
        loop: DeviceLoop = native.RefineLoop(
            ring,
            widths=list(widths),
            rows=rows,
            elements=int(np.prod(plugin.state_shape)),
            half=program.dtype == np.float16,
            terms=program.energy_terms,
            context_bytes=[itemsize * int(np.prod(shape)) for shape in plugin.context_shapes.values()],
            step_size=plugin.step_size,
            lo=plugin.lo,
            hi=plugin.hi,
            plugin=plugin_number,
        )
        return loop
