"""The thread that keeps one plugin's slots full and ticks them."""

from __future__ import annotations

import logging
import threading

from sage_edge.clock import Clock
from sage_edge.errors import CancelledRequestError, DeadlineError, EngineError, SageError
from sage_edge.orchestrator.queue import WaitingRoom
from sage_edge.orchestrator.request import Result, Ticket
from sage_edge.orchestrator.servable import Servable
from sage_edge.runtime import CpuRefiner, Finished, Job
from sage_edge.telemetry import Metrics, RunDirectory

log = logging.getLogger(__name__)


class Worker:
    """Serves the tickets of one plugin, one tick after the other, until its room is closed and empty.

    Threads: one of its own, which alone touches the refiner.
    """

    def __init__(
        self,
        plugin: Servable,
        refiner: CpuRefiner,
        room: WaitingRoom,
        *,
        clock: Clock,
        power_w: float,
        metrics: Metrics,
        directory: RunDirectory,
    ) -> None:
        self._plugin = plugin
        self._refiner = refiner
        self._room = room
        self._clock = clock
        self._power_w = power_w
        self._metrics = metrics
        self._directory = directory
        self._running: dict[int, Ticket] = {}
        self._give_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"refine-{plugin.name}", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Wait for the last ticket; past the time, end what still runs without an answer."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._give_up.set()
            self._thread.join()

    def serve_once(self, *, wait: bool) -> bool:
        """Fill free slots, tick, hand out what ended; returns whether to go on.

        Args:
            wait: Whether to wait for a ticket when no slot is live.
        """
        idle = self._refiner.live == 0
        taken = self._room.take(self._refiner.free, earliest_ns=self._earliest_ns, wait=wait and idle)
        if taken is None:
            return False
        ready, dead = taken
        for ticket in dead:
            self._drop(ticket)
        now_ns = self._clock.monotonic_ns()
        for ticket in ready:
            ticket.admitted_ns = now_ns
            self._running[ticket.run_id] = ticket
        jobs = [Job(t.run_id, t.x0, t.policy, t.is_cancelled) for t in ready]
        for finished in self._refiner.admit(jobs) + self._refiner.tick():
            self._resolve(finished)
        if self._refiner.last_tick_ns:
            self._metrics.observe_tick(
                self._plugin.name, self._refiner.last_tick_ns, self._refiner.last_engine_ns
            )
        return True

    def _run(self) -> None:
        try:
            while self._round():
                pass
        finally:
            self._fail_all(EngineError(f"{self._plugin.name}: the worker has stopped"))

    def _round(self) -> bool:
        if self._give_up.is_set():
            return False
        try:
            return self.serve_once(wait=True)
        except Exception as exc:
            log.exception("refinement failed plugin=%s", self._plugin.name)
            self._fail_all(EngineError(f"{self._plugin.name}: a step failed: {type(exc).__name__}"))
            return True

    def _earliest_ns(self) -> int:
        """When a ticket that is started now can have its initial answer."""
        least_ns = self._refiner.encode_time.mean_ns + self._refiner.decode_time.mean_ns
        return self._clock.monotonic_ns() + int(least_ns)

    def _drop(self, ticket: Ticket) -> None:
        """A ticket that leaves the room without a slot."""
        self._directory.close(ticket.run_id)
        if ticket.is_cancelled():
            self._fail(ticket, CancelledRequestError("given up while it was waiting"))
        else:
            self._fail(ticket, DeadlineError("the deadline leaves no time for even the initial answer"))

    def _resolve(self, finished: Finished) -> None:
        ticket = self._running.pop(finished.job.run_id)
        now_ns = self._clock.monotonic_ns()
        if finished.answer is None:
            self._fail(ticket, CancelledRequestError("given up while it was refined"))
            return
        run, policy = finished.summary, finished.job.policy
        refine_ns = now_ns - ticket.admitted_ns
        self._metrics.request_ended(self._plugin.name, "answered")
        self._metrics.observe_request(
            self._plugin.name, queue_ns=ticket.admitted_ns - ticket.start_ns, refine_ns=refine_ns
        )
        ticket.future.set_result(
            Result(
                request_id=ticket.request_id,
                plugin=self._plugin.name,
                backend=self._plugin.backend,
                answer=finished.answer,
                run=run,
                E_scale=policy.E_scale,
                trust=self._plugin.trust(run.best_E / policy.E_scale),
                ATP_spent=round(self._power_w * run.spent_us * 1e3) / 1e6,
                queue_ms=(ticket.admitted_ns - ticket.start_ns) / 1e6,
                refine_ms=refine_ns / 1e6,
            )
        )

    def _fail_all(self, error: SageError) -> None:
        """End every live refinement with an error, in the telemetry too."""
        self._refiner.abort("error")
        for ticket in self._running.values():
            self._fail(ticket, error)
        self._running.clear()

    def _fail(self, ticket: Ticket, error: SageError) -> None:
        self._metrics.request_ended(self._plugin.name, error.code)
        ticket.future.set_exception(error)
