"""What the routes share: one object, made with the application."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, ParamSpec, TypeVar

from fastapi import Request

from sage_edge.clock import Clock
from sage_edge.config import Settings
from sage_edge.errors import CapacityError, DeadlineError, MemoryFullError
from sage_edge.inputs import InputKind, Limits
from sage_edge.memory import Reservation
from sage_edge.orchestrator import HRM, Budget, Entry, Result, Scene, Ticket
from sage_edge.runtime import Estimate, SizedEstimate
from sage_edge.service.access import caller_of
from sage_edge.service.arrivals import Arrivals
from sage_edge.service.bodies import Body
from sage_edge.service.sse import READER_BYTES, Listener

#: Threads that decode and encode for one plugin: so many slow inputs at a time leave the others waiting.
_THREADS = 4
P = ParamSpec("P")
T = TypeVar("T")
#: Kept free before a deadline for the way from here to the caller, which cannot be seen from here,
#: beside the event loop's delay when a request arrives and when its reply is sent.
_SENDING_NS = 1_000_000


class Prepared(NamedTuple):
    """An input that can be queued.

    Attributes:
        x0: What the plugin's ``prepare`` returned.
        damage: What of it was damaged; empty for none.
        needed_bytes: What it takes until its answer.
    """

    x0: Any
    damage: str
    needed_bytes: int


@dataclass(slots=True)
class Context:
    """The orchestrator behind the routes, and what belongs to HTTP alone.

    Attributes:
        reply_times: Of each plugin, from a decoded answer to its encoded reply, by the size of what was sent;
            kept free before a deadline.
        arrivals: The bodies that are on their way.
        loop_delay: From when something is ready for the event loop until that has come to it.
        is_draining: Set once SIGTERM has come.
    """

    hrm: HRM
    settings: Settings
    clock: Clock
    started_ns: int
    arrivals: Arrivals
    reply_times: defaultdict[str, SizedEstimate] = field(default_factory=lambda: defaultdict(SizedEstimate))
    loop_delay: Estimate = field(default_factory=Estimate)
    is_draining: bool = False
    _executors: defaultdict[str, ThreadPoolExecutor] = field(
        default_factory=lambda: defaultdict(lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="codec"))
    )
    _reading: int = 0

    @property
    def state(self) -> str:
        """``ready``, ``draining`` or ``failed`` (a plugin's worker has died)."""
        if self.is_draining:
            return "draining"
        return "ready" if self.hrm.is_serving else "failed"

    @contextmanager
    def reading(self, request: Request) -> Iterator[Reservation]:
        """Around a body that is read and decoded: bounds how many, and how much of them, can be on their way.

        Returns:
            The memory that the body takes.

        Raises:
            CapacityError: As many are read already as may wait, and none that is on its way makes way.
        """
        most = self.settings.queue_size
        if self._reading >= most and not self.arrivals.make_way(caller_of(request.scope)):
            self.hrm.telemetry.metrics.request_shed(CapacityError.code)
            raise CapacityError(f"{most} requests are arriving already; try again later")
        self._reading += 1
        try:
            with self.hrm.memory["bodies"].reserve() as room:
                yield room
        except MemoryFullError as exc:
            self.hrm.telemetry.metrics.request_shed(exc.code)
            raise
        finally:
            self._reading -= 1

    def listen(self, *, request_id: str | None = None, after: int | None = None) -> Listener:
        """A reader of the telemetry, on the event loop; as Listener.

        Raises:
            MemoryFullError: There are too many already.
        """
        room = self.hrm.memory["events"].reserve(READER_BYTES)
        return Listener(self.hrm.telemetry.hub, room, request_id=request_id, after=after)

    def holding(self) -> Reservation:
        """The memory of a request from its decoding to its answer, held until the end of a ``with``."""
        return self.hrm.memory["requests"].reserve()

    async def in_time(self, request: Request, body: Awaitable[T]) -> T:
        """The body of a request that is being read, or an end to waiting for it; as ``Arrivals.take``."""
        return await self.arrivals.take(body, caller_of(request.scope), self.settings.body_timeout_s)

    def kind_of(self, plugin: str) -> InputKind:
        """The kind of input that a plugin takes.

        Raises:
            UnknownPluginError: No such plugin.
        """
        return self.hrm.require(plugin).takes

    def prepare(self, plugin: str, body: Body, held: Reservation) -> Prepared:
        """Decode a body and make it what the plugin's slots load. Takes its time: not for the event loop.

        Args:
            plugin: The plugin's name.
            body: Its input.
            held: Grows by what the request takes until its answer, before that is taken.

        Raises:
            InputError: The plugin cannot use it.
            MemoryFullError: There is no room for it.
        """
        settings = self.settings
        damage: list[str] = []
        with self.hrm.memory["decoding"].reserve() as room:
            limits = Limits(settings.max_frame_pixels, settings.max_body_bytes, damage.append, room.grow)
            decoded = body.decode(limits)
            needed = self.hrm.needed_bytes(plugin, decoded)
            held.grow(needed)
            return Prepared(self.hrm.prepare(plugin, decoded), "; ".join(damage), needed)

    def submit(self, entry: Entry, start_ns: int) -> Ticket:
        """Queue one input.

        Args:
            entry: The input and its limits.
            start_ns: When the request arrived.

        Raises:
            SageError: As ``HRM.submit``.
        """
        with self._learning_from_refusals([entry]):
            ticket = self.hrm.submit(
                entry.plugin,
                entry.prepared,
                entry.budget,
                request_id=entry.request_id,
                start_ns=start_ns,
                reserve_ns=self._reserve_ns([entry]),
                priority=entry.priority,
                stream_id=entry.stream_id,
                keeps_latest=entry.keeps_latest,
                damage=entry.damage,
                needed_bytes=entry.needed_bytes,
            )
        self._learn_later(ticket)
        return ticket

    def submit_scene(
        self, entries: Sequence[Entry], shared: Budget, policy: str | None, start_ns: int
    ) -> tuple[Scene, list[Ticket]]:
        """Queue inputs that share a budget.

        Args:
            entries: The inputs and their own limits.
            shared: The scene's budget.
            policy: How it is shared.
            start_ns: When the request arrived.

        Raises:
            SageError: As ``HRM.submit_scene``.
        """
        with self._learning_from_refusals(entries):
            scene, tickets = self.hrm.submit_scene(
                entries, shared, policy=policy, start_ns=start_ns, reserve_ns=self._reserve_ns(entries)
            )
        for ticket in tickets:
            self._learn_later(ticket)
        return scene, tickets

    def learn_reply(self, ticket: Ticket, answered_ns: int) -> None:
        """The reply to a ticket, whose answer was decoded then, is encoded now."""
        now_ns = self.clock.monotonic_ns()
        self.reply_times[ticket.plugin].add(now_ns - answered_ns, now_ns, size=ticket.size)

    def reply_bound_ms(self, plugin: str) -> float:
        """What is kept free before a deadline for a reply like the last one."""
        known, now_ns = self.reply_times[plugin], self.clock.monotonic_ns()
        return (known.bound_ns(now_ns, size=known.latest_size) + self._ways_ns(now_ns)) / 1e6

    def _reserve_ns(self, entries: Sequence[Entry]) -> int:
        """What encoding and sending the answers takes, kept free before their deadline."""
        now_ns = self.clock.monotonic_ns()
        bounds_ns = [
            self.reply_times[entry.plugin].bound_ns(now_ns, size=self.hrm.size_of(entry)) for entry in entries
        ]
        return sum(bounds_ns) + self._ways_ns(now_ns)

    def _ways_ns(self, now_ns: int) -> int:
        """What the ways from and to the caller take."""
        return _SENDING_NS + 2 * self.loop_delay.bound_ns(now_ns)

    @contextmanager
    def _learning_from_refusals(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Around what may be refused at once for what its replies would take."""
        try:
            yield
        except DeadlineError as exc:
            for entry in entries:
                self._deny(entry.plugin, self.hrm.size_of(entry), exc)
            raise

    def _learn_later(self, ticket: Ticket) -> None:
        """From its refusal, should it wait for a slot in vain."""
        plugin, size = ticket.plugin, ticket.size  # a future that knew its ticket would outlive the request

        def look(future: Future[Result]) -> None:
            error = future.exception()
            if isinstance(error, DeadlineError):
                self._deny(plugin, size, error)

        ticket.future.add_done_callback(look)

    def _deny(self, plugin: str, size: float, error: DeadlineError) -> None:
        now_ns = self.clock.monotonic_ns()
        self.reply_times[plugin].deny(now_ns, size=size, may_fit=error.may_fit)
        self.loop_delay.deny(now_ns, may_fit=error.may_fit)

    def since_ms(self, start_ns: int) -> float:
        """Milliseconds since a monotonic time."""
        return (self.clock.monotonic_ns() - start_ns) / 1e6

    async def run(self, purpose: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do blocking work beside the event loop, on threads that work for another purpose never takes.

        Args:
            purpose: A plugin's name, or what else is served.
            work: What to do.
            args: Given to it.
            kwargs: Given to it.
        """
        loop = asyncio.get_running_loop()
        done_ns = 0

        def timed() -> T:
            nonlocal done_ns
            try:
                return work(*args, **kwargs)
            finally:
                done_ns = self.clock.monotonic_ns()

        try:
            return await loop.run_in_executor(self._executors[purpose], timed)
        finally:
            if done_ns:
                now_ns = self.clock.monotonic_ns()
                self.loop_delay.add(now_ns - done_ns, now_ns)


def context_of(request: Request) -> Context:
    """The context of the application that serves a request."""
    context: Context = request.app.state.context
    return context
