"""One plugin with everything that serves it: its queue, its slots, its thread, and what is known of it."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

from sage_edge import native
from sage_edge.clock import Clock
from sage_edge.config import Settings
from sage_edge.errors import ParameterError
from sage_edge.orchestrator.member import Member
from sage_edge.orchestrator.place import Place, make_refiner
from sage_edge.orchestrator.prices import Price
from sage_edge.orchestrator.profile import Profile
from sage_edge.orchestrator.queue import WaitingRoom
from sage_edge.orchestrator.request import Budget, Ticket
from sage_edge.orchestrator.servable import Servable
from sage_edge.orchestrator.worker import Worker
from sage_edge.runtime import DeviceLoops, Refiner
from sage_edge.telemetry import RunInfo, Telemetry

#: A deadline that never comes.
NEVER_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Lane:
    """One plugin on its way from the queue to the answer."""

    plugin: Servable
    room: WaitingRoom
    refiner: Refiner
    worker: Worker
    profile: Profile

    @property
    def is_serving(self) -> bool:
        """Whether its worker is alive, and the device that it works with."""
        return self.worker.is_alive and not self.refiner.has_failed

    def wait_ns(self, priority: int) -> float:
        """Time until a ticket that comes now has a slot, at the least that can be hoped for."""
        ahead = self.room.before(priority) - self.refiner.free
        return max(0, ahead + 1) * self.worker.slot_time.mean_ns / self.refiner.capacity / 2

    def learn_prices(self, price: Price) -> None:
        """Prices before anything was charged: those of the warm-up. 1 W is 1 micro-ATP in a nanosecond."""
        self.profile.charge(price.power_w * self.refiner.encode_time.mean_ns(1), is_start=True)
        self.profile.charge(price.power_w * self.refiner.tick_time.mean_ns(1), is_start=False)

    def policy(self, budget: Budget, deadline_ns: int, settings: Settings) -> native.HaltPolicy:
        """The plugin's halting rule under a request's own limits.

        Raises:
            ParameterError: A limit is above what the profile allows.
        """
        policy = self.plugin.halting.replace(deadline_ns=deadline_ns)
        if self.refiner.can_rewind:
            policy = policy.replace(rewinds=settings.rewinds, rise=settings.rewind_rise)
        if budget.max_steps is not None:
            if budget.max_steps > settings.step_cap:
                raise ParameterError(
                    f"max_steps: expected at most {settings.step_cap} (profile {settings.profile}), "
                    f"got {budget.max_steps}"
                )
            policy = policy.replace(max_steps=budget.max_steps)
        if budget.eps is not None:
            policy = policy.replace(eps=budget.eps)
        if budget.quality is not None:
            policy = policy.replace(target_E_norm=self.plugin.E_norm_for(budget.quality))
        return policy

    def status(self) -> dict[str, Any]:
        """What runs here, as JSON."""
        refiner = self.refiner
        return {
            "version": self.plugin.version,
            "backend": self.plugin.backend,
            "model_sha256": self.plugin.model_sha256,
            "loop": {"mode": refiner.mode, "reason": refiner.mode_reason},
            "can_rewind": refiner.can_rewind,
            "slots": refiner.slots,
            "live": refiner.live,
            "waiting": len(self.room),
            "history_bytes": refiner.history_bytes,
            "tick_ms": refiner.tick_time.mean_ns(max(refiner.live, 1)) / 1e6,
            "encode_ms": refiner.encode_time.mean_ns(1) / 1e6,
            "decode_ms": refiner.decode_time.mean_ns / 1e6,
        }


def open_lane(
    plugin: Servable,
    settings: Settings,
    *,
    number: int,
    place: Place,
    loops: DeviceLoops,
    ring: native.Ring,
    telemetry: Telemetry,
    clock: Clock,
    branch_slots: int,
) -> Lane:
    """Wire a plugin; nothing runs yet.

    Args:
        plugin: What is served.
        settings: Slots, queue, threads, history.
        number: The plugin's number in the records.
        place: Where its loop runs.
        loops: Makes loops on the device.
        ring: Its mailbox.
        telemetry: Where its runs are described and counted.
        clock: Whose time it is.
        branch_slots: Slots that branches beyond a request's first may take together.

    Raises:
        ConfigError: The sizes make no sense together.
        DeviceError: CUDA refuses the loop.
    """
    refiner = make_refiner(
        plugin, place, loops, ring, settings, plugin_number=number, now_ns=clock.monotonic_ns
    )
    room = WaitingRoom(settings.queue_size)
    worker = Worker(
        plugin,
        refiner,
        room,
        clock=clock,
        metrics=telemetry.metrics,
        directory=telemetry.directory,
        branch_slots=branch_slots,
    )
    telemetry.metrics.watch(
        plugin.name, queue_length=room.__len__, in_flight=lambda: refiner.live, slots=settings.slots
    )
    return Lane(plugin, room, refiner, worker, Profile(settings.step_cap))


def run_info(plugin: Servable, ticket: Ticket, member: Member, entity_id: str) -> RunInfo:
    """What the telemetry must know of a run before its first step."""
    policy, limit_uatp = ticket.policy, member.limit_uatp
    return RunInfo(
        request_id=ticket.request_id,
        plugin=plugin.name,
        plugin_version=plugin.version,
        backend=plugin.backend,
        device=platform.machine(),
        model_sha256=plugin.model_sha256,
        E_scale=policy.E_scale,
        energy_units=plugin.invariants.energy_units,
        state_space=plugin.invariants.state_space,
        noise_model=plugin.invariants.noise_model,
        energy_fn=plugin.invariants.energy_fn,
        entity_id=entity_id,
        max_steps=policy.max_steps,
        deadline_ms=ticket.due_ms,
        eps=policy.eps,
        ATP_allocated=None if limit_uatp is None else limit_uatp / 1e6,
        power_w=member.price.power_w,
        price_source=member.price.source,
        start_ns=ticket.start_ns,
        trust=plugin.trust,
        scene_id=member.scene.scene_id,
        trust_weight=member.weight,
    )
