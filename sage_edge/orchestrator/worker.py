"""The thread that keeps one plugin's slots full and ticks them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from sage_edge.clock import Clock
from sage_edge.errors import (
    CancelledRequestError,
    CapacityError,
    DeadlineError,
    EngineError,
    PluginError,
    SageError,
    SupersededError,
)
from sage_edge.irp import IRPPlugin
from sage_edge.irp.guard import quality_of
from sage_edge.native import RunSummary
from sage_edge.orchestrator.member import Member
from sage_edge.orchestrator.queue import WaitingRoom
from sage_edge.orchestrator.request import Result, Ticket
from sage_edge.runtime import Estimate, Finished, Job, Refiner
from sage_edge.telemetry import Metrics, RunDirectory

log = logging.getLogger(__name__)

#: A round that takes longer than this is probably in a step that does not return.
_STUCK_S = 10.0
#: How long a worker that was told to give up may take to do so.
_GIVE_UP_S = 2.0
#: So many requests in a row that a plugin fails, and it counts as failing.
_FAILING_AFTER = 5


@dataclass(slots=True)
class _Running:
    """A ticket in slots: its branches that still run, the best that ended, and the last error."""

    ticket: Ticket
    branches: int
    left: int
    best: Finished | None = None
    error: SageError | None = None
    members: dict[int, Member] = field(default_factory=dict)


class FirstAnswer(NamedTuple):
    """Nanoseconds that the initial answer of a ticket takes once it has a slot."""

    encode: int
    decode: int


class Worker:
    """Serves the tickets of one plugin, one tick after the other, until its room is closed and empty.

    Threads: one of its own, which alone touches the refiner; another that only refuses who waits for too
    long, so that no step of somebody else delays that; ``peek`` and ``displace`` from any.
    """

    def __init__(
        self,
        plugin: IRPPlugin,
        refiner: Refiner,
        room: WaitingRoom,
        *,
        clock: Clock,
        metrics: Metrics,
        directory: RunDirectory,
        branch_slots: int = 0,
    ) -> None:
        """Make a worker that does not run yet.

        Args:
            plugin: What it serves.
            refiner: Its slots.
            room: Where its tickets wait.
            clock: Whose time it is.
            metrics: Where it counts.
            directory: Where runs that never began are closed.
            branch_slots: Slots that branches beyond a request's first may take together.
        """
        self._plugin = plugin
        self._refiner = refiner
        self._room = room
        self._clock = clock
        self._metrics = metrics
        self._directory = directory
        self._branch_slots = branch_slots
        self._running: dict[int, _Running] = {}
        self._failed_in_a_row = 0
        self._busy_since_ns: int | None = None
        #: How long an answered ticket was in its slot.
        self.slot_time = Estimate()
        self._peeks: deque[tuple[Ticket, Future[Result | None]]] = deque()
        self._give_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"refine-{plugin.name}", daemon=True)
        self._doorkeeper = threading.Thread(
            target=self._refuse_the_late, name=f"deadlines-{plugin.name}", daemon=True
        )

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()
        self._doorkeeper.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def is_failing(self) -> bool:
        """Whether the plugin has failed its last requests, one after the other."""
        return self._failed_in_a_row >= _FAILING_AFTER

    @property
    def is_stuck(self) -> bool:
        """Whether a round, or a step beside it, has lasted so long that it does probably not return."""
        begun_ns = (self._busy_since_ns, self._refiner.apart_since_ns)
        since_ns = min((one for one in begun_ns if one is not None), default=None)
        return since_ns is not None and self._clock.monotonic_ns() - since_ns > _STUCK_S * 1e9

    def join(self, timeout_s: float) -> None:
        """Wait for the last ticket; past the time, end what still runs without an answer.

        A step that does not return is left behind, and its requests are failed for it. Where the thread was
        never started the tickets are served here.
        """
        if self._thread.ident is None:
            self._run()
            return
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            return
        self._give_up.set()
        self._thread.join(_GIVE_UP_S)
        if self._thread.is_alive():
            log.error("a step does not return plugin=%s action=leave", self._plugin.name)
            error = EngineError(f"{self._plugin.name}: a step did not return before the service ended")
            for running in {id(one): one for one in self._running.values()}.values():
                self._fail(running.ticket, error)

    def peek(self, ticket: Ticket) -> Future[Result | None]:
        """The best answer so far of a ticket, after the tick that runs; None when it is in no slot then.

        A ticket that ends first resolves its own future; wait for either.
        """
        wanted: Future[Result | None] = Future()
        wanted.set_running_or_notify_cancel()  # one who stops waiting must not cancel it under the worker
        self._peeks.append((ticket, wanted))
        return wanted

    def displace(self, ticket: Ticket, by: Ticket) -> None:
        """End a waiting ticket whose place another one took. Any thread."""
        for member in ticket.members:
            self._forget(member)
        if by.keeps_latest and ticket.stream_id == by.stream_id:
            self._fail(
                ticket, SupersededError(f"a newer frame of stream {ticket.stream_id!r} took its place")
            )
        else:
            self._fail(ticket, CapacityError("a request of higher priority took its place; try again later"))

    def serve_once(self, *, wait: bool) -> bool:
        """Fill free slots, tick, hand out what ended; a failing engine fails what is in the slots.

        Args:
            wait: Whether to wait for a ticket when no slot is live.

        Returns:
            Whether to go on; False once the room is closed and empty, if asked to wait.
        """
        try:
            return self._serve(wait=wait)
        except Exception as exc:
            log.exception("refinement failed plugin=%s", self._plugin.name)
            self._fail_all(EngineError(f"{self._plugin.name}: a step failed: {type(exc).__name__}"))
            return True
        finally:
            self._busy_since_ns = None

    def _serve(self, *, wait: bool) -> bool:
        idle = self._refiner.live == 0
        taken = self._room.take(self._refiner.free, is_dead=self._is_dead, wait=wait and idle)
        if taken is None:
            return False
        for ticket in taken.dead:
            self._drop(ticket)
        self._busy_since_ns = self._clock.monotonic_ns()
        jobs = self._jobs(taken.ready)
        self._end_all(self._refiner.make_way(jobs))
        self._end_all(self._refiner.admit(jobs))
        self._end_all(self._refiner.tick())
        self._answer_peeks()
        if self._refiner.last_tick_ns:
            self._metrics.observe_tick(
                self._plugin.name, self._refiner.last_tick_ns, self._refiner.last_engine_ns
            )
        return True

    def _run(self) -> None:
        try:
            while not self._give_up.is_set() and self.serve_once(wait=True):
                pass
        finally:
            self._fail_all(EngineError(f"{self._plugin.name}: the worker has stopped"))

    def first_answer_ns(self, size: float, now_ns: int) -> FirstAnswer:
        """What a ticket that is started now, with who waits, takes to its initial answer. Any thread."""
        together = max(1, min(len(self._room), self._refiner.free))
        return FirstAnswer(
            encode=self._refiner.encode_time.firm_ns(now_ns, rows=together, size=size),
            decode=self._refiner.decode_time.firm_ns(now_ns, size=size),
        )

    def refusal(self, ticket: Ticket, wait_ns: float, now_ns: int) -> DeadlineError:
        """Refuse a ticket whose initial answer would be late; what decided trusts itself less. Any thread.

        Args:
            ticket: Whose deadline is too near.
            wait_ns: From its arrival to its slot.
            now_ns: Monotonic time.
        """
        encode, decode = self._refiner.encode_time, self._refiner.decode_time
        least_ns = encode.least_ns(size=ticket.size) + decode.least_ns(size=ticket.size)
        may_fit = ticket.deadline_ns + ticket.reserve_ns - now_ns >= least_ns
        parts_ns = {
            "wait": wait_ns,
            **self.first_answer_ns(ticket.size, now_ns)._asdict(),
            "reply": ticket.reserve_ns,
        }
        for known in (encode, decode):
            known.deny(now_ns, size=ticket.size, may_fit=may_fit)
        bound_ms = {part: round(taken_ns / 1e6, 3) for part, taken_ns in parts_ns.items()}
        words = " + ".join(f"{part} {taken_ms:g}" for part, taken_ms in bound_ms.items())
        due = "the deadline" if ticket.due_ms is None else f"deadline_ms: {ticket.due_ms:g}"
        return DeadlineError(
            f"{due} is too short: even the initial answer takes {sum(bound_ms.values()):.3f} ms ({words})",
            bound_ms,
            may_fit=may_fit,
        )

    def _left_ns(self, ticket: Ticket) -> int:
        """Time until a ticket can no longer be answered in time."""
        now_ns = self._clock.monotonic_ns()
        return ticket.deadline_ns - now_ns - sum(self.first_answer_ns(ticket.size, now_ns))

    def _is_dead(self, ticket: Ticket) -> bool:
        return self._left_ns(ticket) < 0

    def _refuse_the_late(self) -> None:
        while dead := self._room.take_dead(self._is_dead, lambda ticket: self._left_ns(ticket) / 1e9):
            for ticket in dead:
                self._drop(ticket)

    def _jobs(self, tickets: Sequence[Ticket]) -> list[Job]:
        """The runs of tickets that begin now: each one's first branch, and others where slots are free."""
        now_ns = self._clock.monotonic_ns()
        spare = self._refiner.free - len(tickets)
        jobs = []
        for ticket in tickets:
            ticket.admitted_ns = now_ns
            count = 1 + max(0, min(len(ticket.members) - 1, spare, self._free_branch_slots()))
            spare -= count - 1
            running = _Running(ticket, count, count)
            for member in ticket.members[:count]:
                running.members[member.run_id] = member
                self._running[member.run_id] = running
                jobs.append(_job(ticket, member, count))
            for member in ticket.members[count:]:
                self._forget(member)
        return jobs

    def _free_branch_slots(self) -> int:
        taken = sum(1 for run_id, running in self._running.items() if running.members[run_id].branch)
        return self._branch_slots - taken

    def _forget(self, member: Member) -> None:
        """A run that never had a slot."""
        self._directory.close(member.run_id)
        member.scene.leave(member, None)

    def _drop(self, ticket: Ticket) -> None:
        """A ticket that leaves the room without a slot."""
        for member in ticket.members:
            self._forget(member)
        if ticket.is_cancelled():
            self._fail(ticket, CancelledRequestError("given up while it was waiting"))
        else:
            now_ns = self._clock.monotonic_ns()
            self._fail(ticket, self.refusal(ticket, now_ns - ticket.start_ns, now_ns))

    def _end_all(self, ended: Sequence[Finished]) -> None:
        for finished in ended:
            self._end(finished)

    def _end(self, finished: Finished) -> None:
        """A run has ended; the ticket's last one answers it."""
        running = self._running.pop(finished.job.run_id)
        running.left -= 1
        member = running.members[finished.job.run_id]
        if finished.summary is None:  # it never had a state, so that nothing of it is in the telemetry
            member.halt_reason = "error"
            self._forget(member)
        else:
            member.scene.leave(member, finished.summary)
        if finished.answer is not None and _beats(finished, running.best):
            running.best = finished
        running.error = finished.error or running.error
        if isinstance(finished.error, PluginError):
            self._log_failure(running.ticket, finished.error)
        if running.left:
            return
        ticket, best = running.ticket, running.best
        if ticket.is_cancelled() or (best is None and running.error is None):
            self._fail(ticket, CancelledRequestError("given up while it was refined"))
        elif best is None:
            self._fail(ticket, running.error or EngineError("no branch has an answer"))
        else:
            self._answer(running, best)

    def _answer(self, running: _Running, best: Finished) -> None:
        ticket = running.ticket
        try:
            result = self._result(running, best)
        except PluginError as exc:
            self._log_failure(ticket, exc)
            self._fail(ticket, exc)
            return
        self._failed_in_a_row = 0
        now_ns = self._clock.monotonic_ns()
        self.slot_time.add(now_ns - ticket.admitted_ns, now_ns)
        self._metrics.request_ended(self._plugin.name, "answered")
        self._metrics.observe_request(
            self._plugin.name,
            queue_ns=ticket.admitted_ns - ticket.start_ns,
            refine_ns=now_ns - ticket.admitted_ns,
        )
        ticket.future.set_result(result)

    def _log_failure(self, ticket: Ticket, error: PluginError) -> None:
        """The words of a plugin's own error, which its caller is not told."""
        log.error(
            "plugin failed plugin=%s request_id=%s error=%s",
            self._plugin.name,
            ticket.request_id,
            error,
            exc_info=error,
        )

    def _answer_peeks(self) -> None:
        """Answer who has asked by now, once for all who ask for the same; who asks meanwhile waits a tick."""
        asked: dict[int, tuple[Ticket, list[Future[Result | None]]]] = {}
        for _ in range(len(self._peeks)):
            ticket, wanted = self._peeks.popleft()
            asked.setdefault(ticket.run_id, (ticket, []))[1].append(wanted)
        for ticket, all_wanted in asked.values():
            try:
                shown = self._best_so_far(ticket)
            except PluginError as exc:
                for wanted in all_wanted:
                    wanted.set_exception(exc)
            else:
                for wanted in all_wanted:
                    wanted.set_result(shown)

    def _best_so_far(self, ticket: Ticket) -> Result | None:
        """The best state of all branches, decoded for a peek; None when it is in no slot."""
        running = self._running.get(ticket.run_id) or next(
            (self._running[m.run_id] for m in ticket.members if m.run_id in self._running), None
        )
        if running is None:
            return None
        best = running.best
        for run_id in running.members:
            finished = self._refiner.peek(run_id) if run_id in self._running else None
            if finished is not None and finished.answer is not None and _beats(finished, best):
                best = finished
        return self._result(running, best) if best else None

    def _result(self, running: _Running, best: Finished) -> Result:
        ticket, summary = running.ticket, best.summary
        if best.answer is None or summary is None:
            raise EngineError(f"{self._plugin.name}: the best branch has no answer")
        scale = best.job.policy.E_scale
        trust = quality_of(self._plugin, summary.best_E / scale)
        return Result(
            request_id=ticket.request_id,
            plugin=self._plugin.name,
            backend=self._plugin.backend,
            answer=best.answer,
            run=_still_running(summary) if running.left else summary,
            E_scale=scale,
            trust=0.0 if ticket.damage and trust is not None else trust,
            ATP_spent=sum(member.spent_uatp for member in running.members.values()) / 1e6,
            queue_ms=(ticket.admitted_ns - ticket.start_ns) / 1e6,
            refine_ms=(self._clock.monotonic_ns() - ticket.admitted_ns) / 1e6,
            branches=running.branches,
            scene_id=ticket.members[0].scene.scene_id,
            damage=ticket.damage,
        )

    def _fail_all(self, error: SageError) -> None:
        """End every live refinement with an error, in the telemetry too."""
        ended_by = self._refiner.abort("error")
        failed = {id(running): running for running in self._running.values()}
        self._running.clear()
        for running in failed.values():
            for member in running.members.values():
                if not member.has_ended:
                    member.halt_reason = ended_by.get(member.run_id, "error")
                    member.scene.leave(member, None)
            self._fail(running.ticket, error)

    def _fail(self, ticket: Ticket, error: SageError) -> None:
        if ticket.future.done():  # whoever closed the service did not wait for it
            return
        if isinstance(error, PluginError | EngineError):
            self._failed_in_a_row += 1
        self._metrics.request_ended(self._plugin.name, error.code)
        ticket.future.set_exception(error)


def _job(ticket: Ticket, member: Member, branches: int) -> Job:
    """One branch of a ticket; branches beyond the first start from noise that their run's number seeds."""
    return Job(
        run_id=member.run_id,
        x0=ticket.x0,
        policy=ticket.policy,
        follower=member,
        branch=member.branch,
        branches=branches,
        seed=member.run_id if member.branch else None,
        stream_id=ticket.stream_id,
        size=ticket.size,
        needed_bytes=ticket.needed_bytes,
    )


def _beats(finished: Finished, best: Finished | None) -> bool:
    """Whether an answer is better: feasible before not, then by energy."""
    if best is None:
        return True
    one, other = finished.summary, best.summary
    if one is None or other is None:
        return other is None
    return (not one.best_feasible, one.best_E) < (not other.best_feasible, other.best_E)


def _still_running(summary: RunSummary) -> RunSummary:
    """What a branch measured while others of its request go on."""
    return summary._replace(halt_reason=None)
