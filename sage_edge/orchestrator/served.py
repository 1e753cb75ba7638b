"""One plugin with everything that serves it: its queue, its slots, its thread, and what is known of it."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

from sage_edge import native
from sage_edge.clock import Clock
from sage_edge.config import Settings
from sage_edge.errors import ParameterError
from sage_edge.irp import IRPPlugin
from sage_edge.irp.guard import calling, number_of
from sage_edge.irp.latent import compiled_rule
from sage_edge.irp.lrc import LRC
from sage_edge.memory import Account
from sage_edge.orchestrator.member import Member
from sage_edge.orchestrator.prices import Price
from sage_edge.orchestrator.profile import Profile
from sage_edge.orchestrator.queue import WaitingRoom
from sage_edge.orchestrator.request import Budget, Ticket
from sage_edge.orchestrator.worker import Worker
from sage_edge.runtime import DeviceLoops, LoopChoice, Refiner, open_refiner
from sage_edge.telemetry import PluginInfo, RunInfo, Telemetry

#: A deadline that never comes.
NEVER_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ServedPlugin:
    """One plugin on its way from the queue to the answer."""

    plugin: IRPPlugin
    info: PluginInfo
    room: WaitingRoom
    refiner: Refiner
    worker: Worker
    profile: Profile

    @property
    def is_serving(self) -> bool:
        """Whether its worker is alive, and the device that it works with."""
        return self.worker.is_alive and not self.refiner.has_failed

    def wait_ns(self, priority: int, now_ns: int) -> float:
        """Time until a ticket that comes now has a slot, at the least that can be hoped for."""
        ahead = self.room.before(priority) - self.refiner.free
        return max(0, ahead + 1) * self.worker.slot_time.hopeful_ns(now_ns) / self.refiner.capacity / 2

    def check_deadline(self, ticket: Ticket, now_ns: int) -> None:
        """Refuse at once what will be late; what has denied it trusts itself less until it learns.

        Raises:
            DeadlineError: Even its initial answer would be.
        """
        wait_ns = self.wait_ns(ticket.priority, now_ns)
        if ticket.deadline_ns >= now_ns + wait_ns + sum(self.worker.first_answer_ns(ticket.size, now_ns)):
            return
        self.worker.slot_time.deny(now_ns)
        raise self.worker.refusal(ticket, now_ns - ticket.start_ns + wait_ns, now_ns)

    def learn_prices(self, price: Price) -> None:
        """Prices before anything was charged: those of the warm-up. 1 W is 1 micro-ATP in a nanosecond."""
        self.profile.charge(price.power_w * self.refiner.encode_time.mean_ns(1), is_start=True)
        self.profile.charge(price.power_w * self.refiner.tick_time.mean_ns(1), is_start=False)

    def policy(self, budget: Budget, deadline_ns: int, settings: Settings) -> native.HaltPolicy:
        """The plugin's halting rule under a request's own limits.

        Raises:
            ParameterError: A limit is above what the profile allows.
            PluginError: The plugin cannot say which energy a quality takes.
        """
        rule, cap = compiled_rule(self.plugin), settings.step_cap
        policy = rule.replace(deadline_ns=deadline_ns, max_steps=min(rule.max_steps, cap))
        if self.refiner.can_rewind:
            policy = policy.replace(rewinds=settings.rewinds, rise=settings.rewind_rise)
        if budget.max_steps is not None:
            if budget.max_steps > cap:
                raise ParameterError(
                    f"max_steps: expected at most {cap} (profile {settings.profile}), got {budget.max_steps}"
                )
            policy = policy.replace(max_steps=budget.max_steps)
        if budget.eps is not None:
            # The gap too: neither a stall nor a loose answer ends as converged.
            policy = policy.replace(eps=budget.eps, gap_tolerance=budget.eps)
        if budget.quality is not None:
            with calling(self.plugin.name, "E_norm_for"):
                wanted = self.plugin.E_norm_for(budget.quality)
            policy = policy.replace(target_E_norm=number_of(wanted, self.plugin.name, "E_norm_for"))
        return policy

    def status(self, now_ns: int) -> dict[str, Any]:
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
            "decode_ms": refiner.decode_time.mean_ns() / 1e6,
            "bound_ms": self._bound_ms(now_ns),
        }

    def _bound_ms(self, now_ns: int) -> dict[str, float]:
        """What a request that comes now is promised by, for the size of the last one."""
        refiner = self.refiner
        encode, decode, tick = refiner.encode_time, refiner.decode_time, refiner.tick_time
        bounds_ns = {
            "wait": self.wait_ns(0, now_ns),
            "encode": encode.bound_ns(now_ns, size=encode.latest_size),
            "step": tick.bound_ns(now_ns, rows=max(refiner.live, 1), size=tick.latest_size),
            "decode": decode.bound_ns(now_ns, size=decode.latest_size),
        }
        return {part: bound_ns / 1e6 for part, bound_ns in bounds_ns.items()}


def open_served(
    plugin: IRPPlugin,
    settings: Settings,
    *,
    number: int,
    choice: LoopChoice,
    loops: DeviceLoops,
    ring: native.Ring,
    telemetry: Telemetry,
    clock: Clock,
    branch_slots: int,
    memory: Account,
) -> ServedPlugin:
    """Wire a plugin; nothing runs yet.

    Args:
        plugin: What is served.
        settings: Slots, queue, threads, history.
        number: The plugin's number in the records.
        choice: Where its loop runs.
        loops: Makes loops on the device.
        ring: Its mailbox.
        telemetry: Where its runs are described and counted.
        clock: Whose time it is.
        branch_slots: Slots that branches beyond a request's first may take together.
        memory: Where what its streams leave counts.

    Raises:
        ConfigError: The sizes make no sense together.
        DeviceError: CUDA refuses the loop.
    """
    refiner = open_refiner(
        plugin,
        choice,
        loops,
        ring,
        settings,
        plugin_number=number,
        now_ns=clock.monotonic_ns,
        annotate=telemetry.directory.annotate,
        memory=memory,
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
    info = PluginInfo(
        name=plugin.name,
        version=plugin.version,
        backend=plugin.backend,
        device=platform.machine(),
        model_sha256=plugin.model_sha256,
        invariants=plugin.invariants,
        calibration=plugin.calibration,
    )
    return ServedPlugin(plugin, info, room, refiner, worker, Profile(settings.step_cap))


def run_info(info: PluginInfo, ticket: Ticket, member: Member, *, entity_id: str, lrc: LRC) -> RunInfo:
    """What the telemetry must know of a run before its first step."""
    limit_uatp = member.limit_uatp
    return RunInfo(
        plugin=info,
        policy=ticket.policy,
        request_id=ticket.request_id,
        entity_id=entity_id,
        start_ns=ticket.start_ns,
        power_w=member.price.power_w,
        price_source=member.price.source,
        deadline_ms=ticket.due_ms,
        ATP_allocated=None if limit_uatp is None else limit_uatp / 1e6,
        scene_id=member.scene.scene_id,
        trust_weight=member.weight,
        lrc=lrc,
    )
