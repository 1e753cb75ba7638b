"""What the orchestrator needs of a plugin."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from sage_edge.irp import Invariants
from sage_edge.native import HaltPolicy
from sage_edge.runtime import DeviceProgram, SlotStates


class Servable(Protocol):
    """A plugin that can be served: its slots, and what a request and a record ask of it."""

    name: str
    version: str
    invariants: Invariants
    halting: HaltPolicy
    backend: str
    takes: Literal["frame", "document"]

    @property
    def model_sha256(self) -> str | None:
        """Digest of what was learned, None for a plugin without a model."""

    def open_slots(self, capacity: int, threads: int, history: int = 0) -> SlotStates:
        """Room for the states of ``capacity`` runs, for one refiner's thread.

        Args:
            capacity: Slots.
            threads: Threads that a step may use.
            history: Earlier states to keep of each run, where the plugin can go back to one.
        """

    def prepare(self, frame: Any) -> Any:
        """Check a frame, or a document where the plugin takes one, and make it what the slots load.

        Args:
            frame: NumPy array [H, W, 3] or of another shape; or a mapping of named values.

        Raises:
            InputError: It cannot be used.
        """

    def trust(self, E_norm: float) -> float | None:
        """Expected quality in [0, 1] of an answer with this energy; None without a calibration."""

    def E_norm_for(self, quality: float) -> float:
        """The energy at which that quality is expected; -inf when it is out of reach."""


@runtime_checkable
class ServableOnDevice(Protocol):
    """A plugin whose step may run in the loop on the device."""

    def device_program(self) -> DeviceProgram | None:
        """What that loop needs of it; None where its engines are on the host."""
