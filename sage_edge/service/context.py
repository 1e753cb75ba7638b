"""What the routes share: one object, made with the application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from fastapi import Request

from sage_edge.clock import Clock
from sage_edge.config import Settings
from sage_edge.errors import BodyTimeoutError, CapacityError
from sage_edge.inputs import InputKind, Limits
from sage_edge.orchestrator import HRM, Entry, Ticket
from sage_edge.runtime import Estimate
from sage_edge.service.bodies import Body

P = ParamSpec("P")
T = TypeVar("T")
#: Kept free before a deadline for the way from here to the caller, which cannot be seen from here.
_SENDING_NS = 1_000_000


@dataclass(slots=True)
class Context:
    """The orchestrator behind the routes, and what belongs to HTTP alone.

    Attributes:
        reply_time: From the decoded answer to its encoded reply; kept free before a deadline.
        is_draining: Set once SIGTERM has come.
    """

    hrm: HRM
    settings: Settings
    clock: Clock
    executor: ThreadPoolExecutor
    started_ns: int
    reply_time: Estimate = field(default_factory=Estimate)
    is_draining: bool = False
    _reading: int = 0

    @property
    def state(self) -> str:
        """``ready``, ``draining`` or ``failed`` (a plugin's worker has died)."""
        if self.is_draining:
            return "draining"
        return "ready" if self.hrm.is_serving else "failed"

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around a body that is read and decoded: bounds how many are in memory before they can queue.

        Raises:
            CapacityError: As many are read already as may wait.
        """
        most = self.settings.queue_size
        if self._reading >= most:
            self.hrm.telemetry.metrics.request_shed(CapacityError.code)
            raise CapacityError(f"{most} requests are arriving already; try again later")
        self._reading += 1
        try:
            yield
        finally:
            self._reading -= 1

    async def in_time(self, body: Awaitable[T]) -> T:
        """A body that is being read, or an end to waiting for it.

        Raises:
            BodyTimeoutError: It did not arrive in time.
        """
        within_s = self.settings.body_timeout_s
        try:
            return await asyncio.wait_for(body, within_s)
        except asyncio.TimeoutError as exc:
            raise BodyTimeoutError(f"body: expected all of it within {within_s:g} s") from exc

    def kind_of(self, plugin: str) -> InputKind:
        """The kind of input that a plugin takes.

        Raises:
            UnknownPluginError: No such plugin.
        """
        return self.hrm.require(plugin).takes

    def prepare(self, plugin: str, body: Body) -> Any:
        """Decode a body and make it what the plugin's slots load. Takes its time: not for the event loop.

        Raises:
            InputError: The plugin cannot use it.
        """
        settings = self.settings
        limits = Limits(max_pixels=settings.max_frame_pixels, max_bytes=settings.max_body_bytes)
        return self.hrm.prepare(plugin, body.decode(limits))

    def submit(self, entry: Entry, start_ns: int) -> Ticket:
        """Queue one input.

        Args:
            entry: The input and its limits.
            start_ns: When the request arrived.

        Raises:
            SageError: As ``HRM.submit``.
        """
        return self.hrm.submit(
            entry.plugin,
            entry.prepared,
            entry.budget,
            request_id=entry.request_id,
            start_ns=start_ns,
            reserve_ns=self.reserve_ns(1),
            priority=entry.priority,
            stream_id=entry.stream_id,
            keeps_latest=entry.keeps_latest,
        )

    def reserve_ns(self, answers: int) -> int:
        """What encoding and sending so many answers takes, kept free before their deadline."""
        return answers * self.reply_time.bound_ns + _SENDING_NS

    def since_ms(self, start_ns: int) -> float:
        """Milliseconds since a monotonic time."""
        return (self.clock.monotonic_ns() - start_ns) / 1e6

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do blocking work beside the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, lambda: work(*args, **kwargs))


def context_of(request: Request) -> Context:
    """The context of the application that serves a request."""
    context: Context = request.app.state.context
    return context
