"""One request to the orchestrator: its budget, its ticket and its result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sage_edge.errors import ParameterError
from sage_edge.irp import Answer
from sage_edge.native import HaltPolicy, RunSummary
from sage_edge.orchestrator.member import Member

#: The largest budget in ms or mJ: thirty years, and still far from where integer nanoseconds overflow.
LARGEST_BUDGET = 1e12
#: Most branches of one request.
MOST_BRANCHES = 8


@dataclass(frozen=True, slots=True)
class Budget:
    """What a request may spend; None leaves the plugin's own limit.

    Attributes:
        max_steps: Largest number of steps, 0 for the initial answer only.
        deadline_ms: Milliseconds from arrival within which the answer must be there.
        atp: Refinement energy in ATP (1 ATP = 1 mJ).
        eps: Range of E_norm below which the refinement counts as converged.
        quality: Expected quality in (0, 1] at which the answer is good enough.
        branches: Starts to refine from, 1 to MOST_BRANCHES: the plugin's own and noisy ones, as slots are
            free; they share ``atp``, and the best answer counts.
    """

    max_steps: int | None = None
    deadline_ms: float | None = None
    atp: float | None = None
    eps: float | None = None
    quality: float | None = None
    branches: int = 1

    def __post_init__(self) -> None:
        """Check the ranges, which no NaN is in; raises ParameterError naming the parameter."""
        spending = f"more than 0 and at most {LARGEST_BUDGET:g}"
        self._check("max_steps", "0 or more", lambda value: value >= 0)
        self._check("deadline_ms", spending, lambda value: 0 < value <= LARGEST_BUDGET)
        self._check("atp", spending, lambda value: 0 < value <= LARGEST_BUDGET)
        self._check("eps", "a finite number, 0 or more", lambda value: 0 <= value < float("inf"))
        self._check("quality", "more than 0 and at most 1", lambda value: 0 < value <= 1)
        self._check("branches", f"1 to {MOST_BRANCHES}", lambda value: 1 <= value <= MOST_BRANCHES)

    def _check(self, name: str, expected: str, holds: Callable[[Any], bool]) -> None:
        value = getattr(self, name)
        if value is not None and not holds(value):
            raise ParameterError(f"{name}: expected {expected}, got {value}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One input of a request or a scene, with its own limits.

    Attributes:
        plugin: The plugin's name.
        prepared: What its ``prepare`` returned.
        budget: Its own limits.
        request_id: The caller's name for it; None: a new one.
        priority: Of two waiting requests the one with more goes first.
        stream_id: The stream that its frame belongs to, if any.
        keeps_latest: Whether an older waiting frame of the stream gives way to it.
        damage: What of its input is damaged; empty for none.
        needed_bytes: Memory that it takes until its answer, where that is known.
    """

    plugin: str
    prepared: Any
    budget: Budget = field(default_factory=Budget)
    request_id: str | None = None
    priority: int = 0
    stream_id: str | None = None
    keeps_latest: bool = False
    damage: str = ""
    needed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """The best answer of a request, how far to trust it and what it cost.

    Attributes:
        answer: Decoded from the lowest-energy feasible state seen.
        run: What the run measured.
        E_scale: Divide an energy by it to get E_norm.
        trust: Expected quality of the answer in [0, 1]; None when the plugin has no calibration. 0 where the
            input was damaged, since a calibration is one for whole inputs.
        ATP_spent: Refinement energy of all branches in ATP (mJ), priced as the telemetry says.
        queue_ms, refine_ms: Waiting for a slot; from the slot to the decoded answer.
        branches: How many starts were refined; ``run`` is that of the best one.
        scene_id: The scene that it shares a budget with.
        damage: What of its input was damaged, in the decoder's words; empty for none.
    """

    request_id: str
    plugin: str
    backend: str
    answer: Answer
    run: RunSummary
    E_scale: float
    trust: float | None
    ATP_spent: float
    queue_ms: float
    refine_ms: float
    branches: int
    scene_id: str
    damage: str = ""

    @property
    def is_final(self) -> bool:
        """Whether the refinement has ended; otherwise this is its best answer so far."""
        return self.run.halt_reason is not None

    @property
    def is_partial(self) -> bool:
        """Whether a limit ended the run before it had converged or was good enough, or it goes on."""
        return self.run.halt_reason not in ("slope<eps", "feasible", "confidence")


def _running_future() -> Future[Result]:
    """A future that only its worker ends: a waiter that goes away must not cancel it under the worker."""
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()
    return future


@dataclass(slots=True)
class Ticket:
    """A submitted request: a future of its result, and a way to give it up.

    Attributes:
        members: Its runs, one for each branch, the plugin's own start first.
        future: Resolves to a Result, or fails with a SageError.
        start_ns: Monotonic time of the request's arrival.
        deadline_ns: Monotonic time at which the answer must be decoded.
        due_ms: The deadline as it was asked for: after the arrival, the way of the reply included.
        priority: Of two waiting requests the one with more goes first.
        stream_id: The stream that its frame belongs to, if any.
        keeps_latest: Whether it makes an older waiting frame of its stream give way.
        size: How large its input is, in the plugin's own unit.
        needed_bytes: Memory that it takes until its answer, where that is known.
        reserve_ns: What the reply takes after the answer.
        damage: What of its input is damaged; empty for none.
    """

    request_id: str
    plugin: str
    x0: Any
    policy: HaltPolicy
    start_ns: int
    deadline_ns: int
    members: Sequence[Member]
    due_ms: float | None = None
    priority: int = 0
    stream_id: str | None = None
    keeps_latest: bool = False
    size: float = 1.0
    needed_bytes: int = 0
    reserve_ns: int = 0
    damage: str = ""
    admitted_ns: int = 0
    future: Future[Result] = field(default_factory=_running_future)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def run_id(self) -> int:
        """The run of its first branch."""
        return self.members[0].run_id

    @property
    def is_admitted(self) -> bool:
        """Whether it has been given a slot."""
        return self.admitted_ns > 0

    def cancel(self) -> None:
        """Give the request up; its slots are free before the next step. Any thread, any time."""
        self._cancelled.set()
        for member in self.members:
            member.order = "cancelled"

    def is_cancelled(self) -> bool:
        """Whether somebody gave it up."""
        return self._cancelled.is_set()
