"""Where a plugin's loop runs: on the host, or on the GPU that its engines are on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sage_edge.config import Settings
from sage_edge.native import Ring
from sage_edge.orchestrator.servable import Servable, ServableOnDevice
from sage_edge.runtime import CpuRefiner, CudaRefiner, DeviceLoops, DeviceProgram, Refiner


class Place(NamedTuple):
    """Decided once, at the start.

    Attributes:
        program: What the loop on the device runs; None: the loop runs on the host.
        reason: Why it runs on the host although the engines are on the device; empty otherwise.
    """

    program: DeviceProgram | None
    reason: str = ""


def find_place(plugin: Servable, loops: DeviceLoops) -> Place:
    """On the device where the plugin has a program for it and there can be a loop; otherwise on the host."""
    program = plugin.device_program() if isinstance(plugin, ServableOnDevice) else None
    reason = loops.why_not() if program is not None else ""
    return Place(None, reason) if reason else Place(program)


def make_ring(place: Place, loops: DeviceLoops, records: int) -> Ring:
    """The mailbox of a loop in that place."""
    return loops.make_ring(records) if place.program is not None else Ring(records)


def make_refiner(
    plugin: Servable,
    place: Place,
    loops: DeviceLoops,
    ring: Ring,
    settings: Settings,
    *,
    plugin_number: int,
    now_ns: Callable[[], int],
) -> Refiner:
    """The refiner of a plugin in its place.

    Raises:
        ConfigError: The sizes make no sense together.
        DeviceError: CUDA refuses.
    """
    if place.program is not None:
        return CudaRefiner(
            place.program, loops, ring, slots=settings.slots, plugin_number=plugin_number, now_ns=now_ns
        )
    return CpuRefiner(
        plugin.open_slots(settings.slots, settings.thread_count, settings.history_states),
        ring=ring,
        plugin_number=plugin_number,
        now_ns=now_ns,
        mode_reason=place.reason,
    )
