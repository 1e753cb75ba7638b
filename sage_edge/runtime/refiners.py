"""Which refiner a plugin gets: decided once, by what the plugin is and where its engines are."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sage_edge import native
from sage_edge.config import Settings
from sage_edge.irp import IRPPlugin, LatentPlugin
from sage_edge.irp.guard import example_of, size_of
from sage_edge.irp.latent import overridden
from sage_edge.memory import UNBOUNDED, Account
from sage_edge.runtime.cpu_refiner import CpuRefiner
from sage_edge.runtime.cuda_refiner import CudaRefiner
from sage_edge.runtime.device_loop import DeviceLoops, DeviceProgram
from sage_edge.runtime.latent_slots import LatentSlots
from sage_edge.runtime.refiner import Refiner
from sage_edge.runtime.slots import Annotate, SlotStates
from sage_edge.runtime.state_slots import LONG_STEP_NS, StateSlots


class LoopChoice(NamedTuple):
    """Where a plugin's loop runs.

    Attributes:
        program: What the loop on the device runs; None: the loop runs on the host.
        reason: Why it runs on the host although the engines are on the device; empty otherwise.
    """

    program: DeviceProgram | None
    reason: str = ""


def choose_loop(plugin: IRPPlugin, loops: DeviceLoops) -> LoopChoice:
    """On the device where the plugin's step engine can be bound there and there can be a loop.

    Raises:
        EngineError: The step engine is not what a loop can run.
    """
    if not isinstance(plugin, LatentPlugin) or plugin.step_engine is None or not plugin.step_engine.ends:
        return LoopChoice(None)
    if own := overridden(plugin):
        return LoopChoice(None, f"the plugin has its own {', '.join(own)}")
    if reason := loops.why_not():
        return LoopChoice(None, reason)
    return LoopChoice(DeviceProgram(plugin, plugin.step_engine))


def make_ring(choice: LoopChoice, loops: DeviceLoops, records: int) -> native.Ring:
    """The mailbox of a loop."""
    return loops.make_ring(records) if choice.program is not None else native.Ring(records)


def open_slots(
    plugin: IRPPlugin,
    *,
    capacity: int,
    threads: int,
    history: int,
    annotate: Annotate = lambda *_: None,
    long_step_ns: int = LONG_STEP_NS,
    memory: Account = UNBOUNDED,
) -> SlotStates:
    """Slots on the host: latents stepped together, or states one by one.

    Args:
        plugin: A latent plugin that overrides nothing of the one-state contract gets the former.
        capacity: Slots.
        threads: Threads of the kernel.
        history: Earlier states kept of each slot beside the best one, for rewinding.
        annotate: Told of what the plugin adds to its telemetry.
        long_step_ns: A state's step that lasts longer is taken on a thread of its own.
        memory: Where what streams leave counts.
    """
    if isinstance(plugin, LatentPlugin) and not overridden(plugin):
        return LatentSlots(plugin, capacity=capacity, threads=threads, history=history, memory=memory)
    return StateSlots(
        plugin,
        capacity=capacity,
        history=history,
        annotate=annotate,
        long_step_ns=long_step_ns,
        memory=memory,
    )


def open_refiner(
    plugin: IRPPlugin,
    choice: LoopChoice,
    loops: DeviceLoops,
    ring: native.Ring,
    settings: Settings,
    *,
    plugin_number: int,
    now_ns: Callable[[], int],
    annotate: Annotate = lambda *_: None,
    memory: Account = UNBOUNDED,
) -> Refiner:
    """The refiner of a plugin.

    Raises:
        ConfigError: The sizes make no sense together.
        DeviceError: CUDA refuses.
        PluginError: The plugin has no example to warm up with.
    """
    if choice.program is not None:
        return CudaRefiner(
            choice.program,
            loops,
            ring,
            slots=settings.slots,
            plugin_number=plugin_number,
            now_ns=now_ns,
            memory=memory,
        )
    states = open_slots(
        plugin,
        capacity=settings.slots,
        threads=settings.thread_count,
        history=settings.history_states,
        annotate=annotate,
        memory=memory,
    )
    return CpuRefiner(
        states,
        lambda: example_of(plugin),
        ring=ring,
        plugin_number=plugin_number,
        now_ns=now_ns,
        mode_reason=choice.reason,
        size_of=lambda x0: size_of(plugin, x0),
    )
