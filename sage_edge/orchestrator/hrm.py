"""The orchestrator (H): takes requests, gives them budgets and slots, and answers each exactly once."""

from __future__ import annotations

import itertools
import platform
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sage_edge import native
from sage_edge.clock import Clock, SystemClock
from sage_edge.config import VERSION, Settings
from sage_edge.errors import ParameterError, SageError, UnknownPluginError
from sage_edge.orchestrator.fit import check_fits
from sage_edge.orchestrator.queue import WaitingRoom
from sage_edge.orchestrator.request import Budget, Ticket
from sage_edge.orchestrator.servable import Servable
from sage_edge.orchestrator.worker import Worker
from sage_edge.plugins import load_plugin
from sage_edge.runtime import CpuRefiner
from sage_edge.telemetry import RunInfo, Telemetry
from sage_edge.telemetry.board import available_bytes

#: A deadline that never comes.
NEVER_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class _Lane:
    """One plugin with everything that serves it."""

    plugin: Servable
    room: WaitingRoom
    refiner: CpuRefiner
    worker: Worker


class HRM:
    """One queue, one refiner and one worker thread for each plugin.

    Threads: ``submit`` from any thread. ``start`` once, ``close`` once.
    """

    def __init__(
        self, settings: Settings, plugins: Mapping[str, Servable], clock: Clock | None = None
    ) -> None:
        """Wire the plugins; nothing runs before ``start``.

        Raises:
            ConfigError: The telemetry schema or a setting cannot be used.
        """
        self.settings = settings
        self._clock = clock or SystemClock()
        self._run_ids = itertools.count(1)
        rings = {name: native.Ring(settings.mailbox_records) for name in plugins}
        self.telemetry = Telemetry(
            [native.RingReader(ring) for ring in rings.values()], settings=settings, clock=self._clock
        )
        self.telemetry.metrics.describe_build(version=VERSION, profile=settings.profile)
        self._lanes = {
            name: self._lane(plugin, rings[name], number)
            for number, (name, plugin) in enumerate(plugins.items())
        }

    def _lane(self, plugin: Servable, ring: native.Ring, number: int) -> _Lane:
        settings = self.settings
        refiner = CpuRefiner(
            plugin.open_slots(settings.slots, settings.thread_count),
            ring=ring,
            plugin_number=number,
            now_ns=self._clock.monotonic_ns,
        )
        room = WaitingRoom(settings.queue_size)
        worker = Worker(
            plugin,
            refiner,
            room,
            clock=self._clock,
            power_w=settings.power_w,
            metrics=self.telemetry.metrics,
            directory=self.telemetry.directory,
        )
        self.telemetry.metrics.watch(
            plugin.name, queue_length=room.__len__, in_flight=lambda: refiner.live, slots=settings.slots
        )
        return _Lane(plugin, room, refiner, worker)

    @property
    def plugins(self) -> Mapping[str, Servable]:
        """The plugins by name."""
        return {name: lane.plugin for name, lane in self._lanes.items()}

    @property
    def is_serving(self) -> bool:
        """Whether every worker is alive."""
        return all(lane.worker.is_alive for lane in self._lanes.values())

    def status(self) -> dict[str, Any]:
        """What runs where, as JSON."""
        return {name: _lane_status(lane) for name, lane in self._lanes.items()}

    def start(self) -> None:
        """Warm the engines up and begin to serve."""
        self.telemetry.start()
        for lane in self._lanes.values():
            lane.refiner.warm_up()
            lane.worker.start()

    def close(self) -> None:
        """Take no more requests, finish those accepted (for at most ``drain_s``), write the telemetry out."""
        for lane in self._lanes.values():
            lane.room.close()
        for lane in self._lanes.values():
            lane.worker.join(self.settings.drain_s)
        self.telemetry.close()

    def require(self, plugin: str) -> Servable:
        """The plugin of that name.

        Raises:
            UnknownPluginError: No such plugin.
        """
        return self._find(plugin).plugin

    def prepare(self, plugin: str, frame: Any) -> Any:
        """Check a frame, or a document, and make it what the plugin's slots load. Any thread.

        Raises:
            UnknownPluginError: No such plugin.
            InputError: The plugin cannot use it.
        """
        return self._find(plugin).plugin.prepare(frame)

    def submit(
        self,
        plugin: str,
        prepared: Any,
        budget: Budget | None = None,
        *,
        request_id: str | None = None,
        start_ns: int | None = None,
        reserve_ns: int = 0,
    ) -> Ticket:
        """Queue a prepared input for refinement.

        Args:
            plugin: The plugin's name.
            prepared: What ``prepare`` returned.
            budget: The request's own limits.
            request_id: The caller's name for it; a new one by default.
            start_ns: Monotonic time of arrival, from which the deadline counts; now by default.
            reserve_ns: Time that the caller needs after the answer, kept free before the deadline.

        Raises:
            UnknownPluginError: No such plugin.
            ParameterError: A limit is above what the profile allows.
            CapacityError: The plugin's queue is full.
            ClosingError: The orchestrator is closing.
        """
        lane = self._find(plugin)
        budget = budget or Budget()
        start_ns = self._clock.monotonic_ns() if start_ns is None else start_ns
        deadline_ns = NEVER_NS
        if budget.deadline_ms is not None:
            deadline_ns = start_ns + int(budget.deadline_ms * 1e6) - reserve_ns
        ticket = Ticket(
            run_id=next(self._run_ids),
            request_id=request_id or uuid.uuid4().hex,
            plugin=plugin,
            x0=prepared,
            policy=self._policy(lane.plugin, budget, deadline_ns),
            start_ns=start_ns,
            deadline_ns=deadline_ns,
        )
        self.telemetry.directory.open(ticket.run_id, self._run_info(lane, ticket, budget))
        try:
            lane.room.put(ticket)
        except SageError as exc:
            self.telemetry.directory.close(ticket.run_id)
            self.telemetry.metrics.request_shed(exc.code)
            raise
        return ticket

    def _find(self, plugin: str) -> _Lane:
        if plugin not in self._lanes:
            raise UnknownPluginError(f"plugin: expected one of {sorted(self._lanes)}, got {plugin!r}")
        return self._lanes[plugin]

    def _policy(self, plugin: Servable, budget: Budget, deadline_ns: int) -> native.HaltPolicy:
        """The plugin's halting rule under a request's own limits."""
        policy = plugin.halting.replace(deadline_ns=deadline_ns)
        if budget.max_steps is not None:
            cap = self.settings.step_cap
            if budget.max_steps > cap:
                profile = self.settings.profile
                raise ParameterError(
                    f"max_steps: expected at most {cap} (profile {profile}), got {budget.max_steps}"
                )
            policy = policy.replace(max_steps=budget.max_steps)
        if budget.eps is not None:
            policy = policy.replace(eps=budget.eps)
        if budget.atp is not None:
            policy = policy.replace(budget_us=budget.atp / self.settings.power_w * 1e3)
        if budget.quality is not None:
            policy = policy.replace(target_E_norm=plugin.E_norm_for(budget.quality))
        return policy

    def _run_info(self, lane: _Lane, ticket: Ticket, budget: Budget) -> RunInfo:
        plugin = lane.plugin
        return RunInfo(
            request_id=ticket.request_id,
            plugin=plugin.name,
            plugin_version=plugin.version,
            backend=plugin.backend,
            device=platform.machine(),
            model_sha256=plugin.model_sha256,
            E_scale=ticket.policy.E_scale,
            energy_units=plugin.invariants.energy_units,
            state_space=plugin.invariants.state_space,
            noise_model=plugin.invariants.noise_model,
            energy_fn=plugin.invariants.energy_fn,
            entity_id=self.settings.entity_id,
            max_steps=ticket.policy.max_steps,
            deadline_ms=budget.deadline_ms,
            eps=ticket.policy.eps,
            ATP_allocated=budget.atp,
            power_w=self.settings.power_w,
            price_source="declared",
            start_ns=ticket.start_ns,
            trust=plugin.trust,
        )


def _lane_status(lane: _Lane) -> dict[str, Any]:
    refiner = lane.refiner
    return {
        "version": lane.plugin.version,
        "backend": lane.plugin.backend,
        "model_sha256": lane.plugin.model_sha256,
        "slots": refiner.live + refiner.free,
        "live": refiner.live,
        "waiting": len(lane.room),
        "tick_ms": refiner.tick_time.mean_ns / 1e6,
        "encode_ms": refiner.encode_time.mean_ns / 1e6,
        "decode_ms": refiner.decode_time.mean_ns / 1e6,
    }


def open_hrm(settings: Settings, clock: Clock | None = None) -> HRM:
    """The orchestrator with the plugins that the settings name, started.

    Raises:
        ConfigError: A plugin or a setting is unknown, or the settings ask for more memory than there is.
        EngineError: An engine file is missing or broken.
    """
    check_fits(settings, available_bytes())
    hrm = HRM(settings, {name: load_plugin(name, settings) for name in settings.plugins}, clock)
    hrm.start()
    return hrm
