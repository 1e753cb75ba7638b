"""The orchestrator (H): takes requests, gives them budgets and slots, and answers each exactly once."""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from sage_edge import native
from sage_edge.clock import Clock, SystemClock
from sage_edge.config import VERSION, Settings
from sage_edge.errors import (
    BudgetError,
    ParameterError,
    PluginError,
    SageError,
    UnknownPluginError,
)
from sage_edge.irp import IRPPlugin
from sage_edge.irp.guard import calling, needed_bytes_of, size_of
from sage_edge.irp.reputation import Outcome
from sage_edge.memory import MemoryBudget
from sage_edge.messages import shown
from sage_edge.orchestrator.fit import budget_bytes, check_fits
from sage_edge.orchestrator.ledger import Ledger
from sage_edge.orchestrator.member import Member
from sage_edge.orchestrator.prices import Prices, read_prices
from sage_edge.orchestrator.remembered import Remembered
from sage_edge.orchestrator.reputation import Source, open_reputation
from sage_edge.orchestrator.request import Budget, Entry, Result, Ticket
from sage_edge.orchestrator.scene import Rules, Scene
from sage_edge.orchestrator.served import NEVER_NS, ServedPlugin, open_served, run_info
from sage_edge.plugins import load_networks, make_plugins
from sage_edge.plugins.check import SLOW_STEP_S, check_quickly
from sage_edge.runtime import CudaLoops, DeviceLoops, choose_loop, make_ring
from sage_edge.telemetry import Telemetry
from sage_edge.telemetry.board import available_bytes

log = logging.getLogger(__name__)


class HRM:
    """One queue, one refiner and one worker thread for each plugin; one energy account for all.

    Threads: ``start`` and ``close`` once; ``serve_once`` in place of ``start``, on one thread; the rest from
    any.
    """

    def __init__(
        self,
        settings: Settings,
        plugins: Mapping[str, IRPPlugin],
        clock: Clock | None = None,
        loops: DeviceLoops | None = None,
    ) -> None:
        """Wire the plugins; nothing runs before ``start``.

        Args:
            settings: What was set.
            plugins: What is served, by name.
            clock: Whose time it is; the system's by default.
            loops: Makes loops on a device; on the first CUDA device by default.

        Raises:
            ConfigError: The telemetry schema or a setting cannot be used.
            DeviceError: CUDA refuses a loop.
        """
        self.settings = settings
        self._clock = clock or SystemClock()
        for name, plugin in plugins.items():
            plugin.name = name
        self._run_ids = itertools.count(1)
        #: What requests may hold, by account.
        self.memory = MemoryBudget(budget_bytes(settings, plugins, available_bytes()))
        loops = loops or CudaLoops()
        choices = {name: choose_loop(plugin, loops) for name, plugin in plugins.items()}
        rings = {name: make_ring(choice, loops, settings.mailbox_records) for name, choice in choices.items()}
        self.telemetry = Telemetry(
            [native.RingReader(ring) for ring in rings.values()], settings=settings, clock=self._clock
        )
        self.telemetry.metrics.describe_build(version=VERSION, profile=settings.profile)
        self.telemetry.metrics.watch_memory(self.memory)
        self.ledger = Ledger(
            round(settings.atp_capacity * 1e6),
            recharge_w=settings.recharge_w,
            now_ns=self._clock.monotonic_ns,
            note=lambda fields: self._note("ledger", fields),
        )
        self.requests = Remembered(
            settings.results_kept,
            self.memory["answers"],
            keep_s=settings.results_keep_s,
            now_ns=self._clock.monotonic_ns,
        )
        self.reputation = open_reputation(settings)
        self._weights = {name: self.reputation.weight(name) for name in plugins}
        self._prices = Prices(
            settings.power_w,
            calibrated=read_prices(Path(settings.prices_file)) if settings.prices_file else None,
            counter=self.telemetry.board.energy if self.telemetry.board else None,
            now_ns=self._clock.monotonic_ns,
        )
        lrc = self.reputation.lrc
        self._rules = Rules(settings.allocation, lrc.L, K_H=settings.scene_steps, eps_H=settings.scene_eps)
        self._served = {
            name: open_served(
                plugin,
                settings,
                number=number,
                choice=choices[name],
                loops=loops,
                ring=rings[name],
                telemetry=self.telemetry,
                clock=self._clock,
                branch_slots=ceil(lrc.C * settings.slots),
                memory=self.memory["streams"].part(len(plugins)),
            )
            for number, (name, plugin) in enumerate(plugins.items())
        }

    def _note(self, kind: str, fields: Mapping[str, Any]) -> None:
        self.telemetry.note(kind, fields, time_ns=self._clock.monotonic_ns())

    @property
    def plugins(self) -> Mapping[str, IRPPlugin]:
        """The plugins by name."""
        return {name: served.plugin for name, served in self._served.items()}

    def problems(self) -> list[str]:
        """What goes wrong and goes on.

        Of the telemetry; ``reputation_not_kept`` where trust is in memory alone; ``plugin_failing:NAME`` of a
        plugin that fails every request, ``plugin_stuck:NAME`` of one in a step that does not return.
        """
        workers = {name: served.worker for name, served in self._served.items()}
        failing = [f"plugin_failing:{name}" for name, worker in workers.items() if worker.is_failing]
        stuck = [f"plugin_stuck:{name}" for name, worker in workers.items() if worker.is_stuck]
        forgetting = [] if self.reputation.is_kept else ["reputation_not_kept"]
        return self.telemetry.problems() + forgetting + failing + stuck

    @property
    def is_serving(self) -> bool:
        """Whether every worker is alive, and the devices that they work with."""
        return all(served.is_serving for served in self._served.values())

    def status(self) -> dict[str, Any]:
        """What runs where, as JSON."""
        now_ns = self._clock.monotonic_ns()
        return {name: served.status(now_ns) for name, served in self._served.items()}

    def prices(self) -> dict[str, dict[str, Any]]:
        """Watts by which each plugin's compute is priced now, and where they come from, as JSON."""
        return {name: self._prices.of(name)._asdict() for name in self._served}

    def __enter__(self) -> HRM:
        """Started already, or to be started within."""
        return self

    def __exit__(self, *_: object) -> None:
        """See ``close``."""
        self.close()

    def start(self) -> None:
        """Warm the engines up and begin to serve, each plugin on a thread of its own.

        Where that fails nothing is left running.

        Raises:
            SageError: What a plugin fails with.
        """
        try:
            self.warm_up()
        except BaseException:
            self.close()
            raise
        for served in self._served.values():
            served.worker.start()

    def warm_up(self) -> None:
        """Begin to drain telemetry and run every engine once. Part of ``start``."""
        self.telemetry.start()
        for served in self._served.values():
            served.refiner.warm_up()
            step_s = served.refiner.tick_time.mean_ns(1) / 1e9
            if step_s > SLOW_STEP_S:
                log.warning(
                    "slow steps plugin=%s step_s=%.1f deadlines wait for one", served.plugin.name, step_s
                )
            mode, reason = served.refiner.mode, served.refiner.mode_reason
            log.info("loop plugin=%s mode=%s reason=%r", served.plugin.name, mode, reason)
            served.learn_prices(self._prices.of(served.plugin.name))

    def serve_once(self) -> None:
        """One round of every plugin on the calling thread: for simulations, which keep their own time.

        After ``warm_up`` and in place of ``start``.
        """
        for served in self._served.values():
            served.worker.serve_once(wait=False)

    def close(self) -> None:
        """Take no more requests, finish those accepted (for at most ``drain_s``), write the telemetry out."""
        for served in self._served.values():
            served.room.close()
        for served in self._served.values():
            served.worker.join(self.settings.drain_s)
        self.telemetry.close()
        self.reputation.close()

    def require(self, plugin: str) -> IRPPlugin:
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
            PluginError: The plugin failed over it.
        """
        found = self._find(plugin).plugin
        try:
            with calling(plugin, "prepare"):
                return found.prepare(frame)
        except PluginError as exc:
            log.exception("plugin failed plugin=%s error=%s", plugin, exc)
            raise

    def needed_bytes(self, plugin: str, frame: Any) -> int:
        """Memory that a request of a frame, or a document, takes until its answer, before anything is taken.

        Raises:
            UnknownPluginError: No such plugin.
            PluginError: The plugin does not say.
        """
        return needed_bytes_of(self._find(plugin).plugin, frame)

    def size_of(self, entry: Entry) -> float:
        """How large an input is, in its plugin's own unit.

        Raises:
            UnknownPluginError: No such plugin.
            PluginError: The plugin does not say.
        """
        return size_of(self._find(entry.plugin).plugin, entry.prepared)

    def submit(
        self,
        plugin: str,
        prepared: Any,
        budget: Budget | None = None,
        *,
        request_id: str | None = None,
        start_ns: int | None = None,
        reserve_ns: int = 0,
        priority: int = 0,
        stream_id: str | None = None,
        keeps_latest: bool = False,
        damage: str = "",
        needed_bytes: int = 0,
    ) -> Ticket:
        """Queue a prepared input for refinement.

        Args:
            plugin: The plugin's name.
            prepared: What ``prepare`` returned.
            budget: The request's own limits.
            request_id: The caller's name for it; a new one by default.
            start_ns: Monotonic time of arrival, from which the deadline counts; now by default.
            reserve_ns: Time that the caller needs after the answer, kept free before the deadline.
            priority: Of two waiting requests the one with more goes first.
            stream_id: The stream that the frame belongs to, if any.
            keeps_latest: Whether an older frame of its stream that still waits gives way to it.
            damage: What of the input is damaged; empty for none.
            needed_bytes: What ``needed_bytes`` said of it.

        Raises:
            UnknownPluginError: No such plugin.
            ParameterError: A limit is above what the profile allows.
            CapacityError: The plugin's queue is full.
            DeadlineError: The deadline will have passed before even the initial answer.
            BudgetError: The energy account cannot pay for the initial answer.
            ClosingError: The orchestrator is closing.
        """
        entry = Entry(
            plugin,
            prepared,
            budget or Budget(),
            request_id,
            priority,
            stream_id,
            keeps_latest,
            damage,
            needed_bytes,
        )
        scene, (ticket,) = self._compose([entry], entry.budget, start_ns, reserve_ns, is_posted=False)
        self._admit(scene, [ticket])
        return ticket

    def submit_scene(
        self,
        entries: Sequence[Entry],
        shared: Budget | None = None,
        *,
        policy: str | None = None,
        start_ns: int | None = None,
        reserve_ns: int = 0,
    ) -> tuple[Scene, list[Ticket]]:
        """Queue inputs that share ``shared.atp``, are due at ``shared.deadline_ms`` and halt together.

        Args:
            entries: At least one; their own budgets limit each alone.
            shared: The scene's budget; ``atp`` and ``deadline_ms`` count.
            policy: How the budget is shared; the setting ``allocation`` by default.
            start_ns: Monotonic time of arrival; now by default.
            reserve_ns: Time that the caller needs after the answers, kept free before the deadline.

        Returns:
            The scene, and a ticket for each entry. Either all are queued or none is.

        Raises:
            SageError: As ``submit``; nothing of the scene is refined then.
        """
        if not entries:
            raise ParameterError("scene: expected at least one member, got none")
        scene, tickets = self._compose(entries, shared or Budget(), start_ns, reserve_ns, True, policy)
        self._admit(scene, tickets)
        return scene, tickets

    def peek(self, ticket: Ticket) -> Future[Result | None]:
        """The best answer so far of a ticket, after the tick that runs; None when it is in no slot then.

        A ticket that ends first resolves its own future; wait for either.
        """
        return self._find(ticket.plugin).worker.peek(ticket)

    def report_quality(
        self,
        request_id: str,
        quality: float,
        *,
        source: Source,
        outcome: Outcome | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Update a plugin's trust by the measured quality of one of its answers; once for each.

        Args:
            request_id: A request that was answered not long ago.
            quality: Against ground truth or an audit, in [0, 1].
            source: ``label`` or ``audit``.
            outcome: How it compares with what was expected, for the rule of that name; None for that of
                the quality.
            inputs: What else the value of the answer is computed from: ``satisfaction``,
                ``verified_claims``, ``total_claims``, ``witness_confidence``, ``value_transferred``.

        Returns:
            The fields of the ``trust`` record.

        Raises:
            UnknownRequestError: No such answer is remembered, or its quality was reported.
            ParameterError: A value is out of its range, or an input is missing.
        """
        answered = self.requests.judge(request_id)
        try:
            update = self.reputation.record(
                answered.plugin,
                quality,
                source=source,
                outcome=outcome,
                v3_inputs=answered.value(quality, inputs) if inputs is not None else None,
                run_id=answered.run_id,
                request_id=request_id,
                now_unix_ns=self._clock.unix_ns(),
            )
        except SageError:
            self.requests.put_back(request_id, answered)
            raise
        self._weights[answered.plugin] = update.after.weight
        fields = update.fields()
        self._note("trust", fields)
        return fields

    def _compose(
        self,
        entries: Sequence[Entry],
        shared: Budget,
        start_ns: int | None,
        reserve_ns: int,
        is_posted: bool,
        policy: str | None = None,
    ) -> tuple[Scene, list[Ticket]]:
        """A scene and its tickets, nothing locked or queued yet."""
        start_ns = self._clock.monotonic_ns() if start_ns is None else start_ns
        scene = Scene(
            uuid.uuid4().hex,
            ledger=self.ledger,
            rules=self._rules if policy is None else self._rules.with_policy(policy),
            budget_uatp=None if shared.atp is None else round(shared.atp * 1e6),
            now_ns=self._clock.monotonic_ns,
            note=self._note,
            is_posted=is_posted,
        )
        tickets = [self._ticket(scene, entry, shared, start_ns, reserve_ns) for entry in entries]
        return scene, tickets

    def _ticket(self, scene: Scene, entry: Entry, shared: Budget, start_ns: int, reserve_ns: int) -> Ticket:
        served = self._find(entry.plugin)
        due_ms = min(
            (b.deadline_ms for b in (entry.budget, shared) if b.deadline_ms is not None), default=None
        )
        deadline_ns = NEVER_NS if due_ms is None else start_ns + int(due_ms * 1e6) - reserve_ns
        try:
            policy = served.policy(entry.budget, deadline_ns, self.settings)
        except PluginError as exc:
            log.exception("plugin failed plugin=%s error=%s", entry.plugin, exc)
            raise
        request_id = entry.request_id or uuid.uuid4().hex
        count = entry.budget.branches
        price = self._prices.of(entry.plugin)
        cap_uatp = None if entry.budget.atp is None else round(entry.budget.atp * 1e6)
        members = [
            Member(
                scene,
                run_id=next(self._run_ids),
                request_id=request_id,
                plugin=entry.plugin,
                profile=served.profile,
                weight=self._weights[entry.plugin] / count,
                E_scale=policy.E_scale,
                max_steps=policy.max_steps,
                price=price,
                branch=branch,
                cap_uatp=cap_uatp,
            )
            for branch in range(count)
        ]
        return Ticket(
            request_id=request_id,
            plugin=entry.plugin,
            x0=entry.prepared,
            policy=policy,
            start_ns=start_ns,
            deadline_ns=deadline_ns,
            members=members,
            due_ms=due_ms,
            priority=entry.priority,
            stream_id=entry.stream_id,
            keeps_latest=entry.keeps_latest,
            size=self.size_of(entry),
            needed_bytes=entry.needed_bytes,
            reserve_ns=reserve_ns,
            damage=entry.damage,
        )

    def _admit(self, scene: Scene, tickets: Sequence[Ticket]) -> None:
        """Lock the scene's energy and queue all its tickets, or none."""
        try:
            self._check_deadlines(tickets)
            self._lock_energy(scene, tickets)
        except SageError as exc:
            self.telemetry.metrics.request_shed(exc.code)
            raise
        queued = 0
        try:
            for ticket in tickets:
                self._queue(ticket)
                queued += 1
        except SageError as exc:
            self.telemetry.metrics.request_shed(exc.code)
            for ticket in tickets[:queued]:
                ticket.cancel()
            for ticket in tickets[queued:]:
                self._forget(ticket)
            raise

    def _queue(self, ticket: Ticket) -> None:
        served = self._find(ticket.plugin)
        for member in ticket.members:
            info = run_info(
                served.info, ticket, member, entity_id=self.settings.entity_id, lrc=self.reputation.lrc
            )
            self.telemetry.directory.open(member.run_id, info)
        note_end = partial(self.requests.note_end, ticket.request_id, ticket.plugin, ticket.run_id)
        ticket.future.add_done_callback(note_end)
        displaced = served.room.put(ticket)
        if displaced is not None:
            served.worker.displace(displaced, by=ticket)

    def _forget(self, ticket: Ticket) -> None:
        """A ticket that was never queued."""
        for member in ticket.members:
            self.telemetry.directory.close(member.run_id)
            member.scene.leave(member, None)

    def _check_deadlines(self, tickets: Sequence[Ticket]) -> None:
        now_ns = self._clock.monotonic_ns()
        for ticket in tickets:
            self._find(ticket.plugin).check_deadline(ticket, now_ns)

    def _lock_energy(self, scene: Scene, tickets: Sequence[Ticket]) -> None:
        members = [member for ticket in tickets for member in ticket.members]
        wanted = scene.budget_uatp
        if wanted is None:
            wanted = int(sum(member.claim().need_uatp for member in members))
        locked = scene.open(members, wanted)
        least = sum(member.claim().start_uatp for member in members if member.branch == 0)
        if locked < min(least, wanted):
            wait_s = self.ledger.wait_s(int(least))
            for member in members:
                scene.leave(member, None)
            raise BudgetError(
                f"energy account: expected {least / 1e6} ATP for the initial answer, "
                f"{locked / 1e6} are there; try again in {wait_s:.1f} s"
            )

    def _find(self, plugin: str) -> ServedPlugin:
        if plugin not in self._served:
            raise UnknownPluginError(f"plugin: expected one of {sorted(self._served)}, got {shown(plugin)}")
        return self._served[plugin]


def open_hrm(settings: Settings, clock: Clock | None = None) -> HRM:
    """The orchestrator with the plugins that the settings name, checked and started.

    Raises:
        ConfigError: A plugin or a setting is unknown, a plugin is not for the profile, or the settings ask
            for more memory than there is.
        EngineError: An engine file is missing or broken.
        PluginError: A plugin breaks its contract.
    """
    plugins = make_plugins(settings)
    check_fits(settings, plugins, available_bytes())
    load_networks(plugins, settings)
    for plugin in plugins.values():
        check_quickly(plugin)
    hrm = HRM(settings, plugins, clock)
    hrm.start()
    return hrm
