"""What runs the refinements of one plugin, on whatever device: its jobs, their followers, what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from sage_edge import native
from sage_edge.errors import SageError
from sage_edge.irp import Answer
from sage_edge.runtime.estimate import SizedEstimate

T = TypeVar("T")


class Follower(Protocol):
    """Whoever steers one run and is told of its states. Read and called on the refiner's thread.

    Attributes:
        order: A halt reason with which the run must end before its next step; None lets it go on.
    """

    order: str | None

    @property
    def budget_us(self) -> float | None:
        """Compute that may be charged to the run, microseconds; None leaves the limit of its policy."""

    def observe(self, E: float, spent_us: float) -> None:
        """A state was reached: its energy, and what was charged so far."""


class Unled:
    """The follower of a run that nobody steers."""

    order: str | None = None
    budget_us: float | None = None

    def observe(self, E: float, spent_us: float) -> None:
        """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Job:
    """One refinement to be run.

    Attributes:
        run_id: Its number in the telemetry.
        x0: The plugin's prepared input.
        policy: Its halting rule with its own limits and deadline.
        follower: Who steers it.
        branch: Names its branch in the telemetry; a rewind adds ``branches``.
        branches: Branches of the same request.
        seed: Of the noise to start from; None starts from the plugin's own first state.
        stream_id: The stream whose last answer it may start from, if any.
        size: How large ``x0`` is, in the plugin's own unit.
        needed_bytes: Memory that it takes until its answer, where that is known.
    """

    run_id: int
    x0: Any
    policy: native.HaltPolicy
    follower: Follower = field(default_factory=Unled)
    branch: int = 0
    branches: int = 1
    seed: int | None = None
    stream_id: str | None = None
    size: float = 1.0
    needed_bytes: int = 0


class Finished(NamedTuple):
    """A refinement that ended.

    Attributes:
        job: What was to be refined.
        answer: Decoded from its best state; None where it was cancelled or has failed.
        summary: What the run measured; None where it had no first state.
        error: Why there is no answer; None where there is one, or the run was cancelled.
    """

    job: Job
    answer: Answer | None
    summary: native.RunSummary | None
    error: SageError | None = None


def largest(jobs: Iterable[Job]) -> float:
    """The size of the largest of some jobs."""
    return max((job.size for job in jobs), default=1.0)


def ended(job: Job, found: Answer | SageError | None, summary: native.RunSummary) -> Finished:
    """A run that has ended, with its answer, without one, or with what its decoding failed with."""
    if isinstance(found, SageError):
        return Finished(job, None, summary, found)
    return Finished(job, found, summary)


def sound(found: Sequence[T | SageError]) -> list[T]:
    """What was found; raises the first error that is among it."""
    for item in found:
        if isinstance(item, SageError):
            raise item
    return [item for item in found if not isinstance(item, SageError)]


class Refiner(Protocol):
    """Keeps the slots of one plugin full, and halts and answers each refinement by its own energies.

    Threads: every method belongs to one thread.
    """

    #: From one halting decision to the next, by requests under way; of a batch of first states; of answers
    #: that are decoded together, by the largest alone.
    tick_time: SizedEstimate
    encode_time: SizedEstimate
    decode_time: SizedEstimate
    #: Of the last ``tick``: the whole, and the share in which engines worked; 0 when nothing was live.
    last_tick_ns: int
    last_engine_ns: int

    @property
    def mode(self) -> str:
        """How ticks follow each other: "host", or a mode of the loop on the device."""

    @property
    def mode_reason(self) -> str:
        """Why not the best mode that the engines' device knows; empty: it is that one."""

    @property
    def slots(self) -> int:
        """Refinements that are stepped together, at most."""

    @property
    def capacity(self) -> int:
        """Requests that may be under way: those in slots, and those that wait beside them for one."""

    @property
    def live(self) -> int:
        """Requests under way."""

    @property
    def free(self) -> int:
        """Requests that ``admit`` can take."""

    @property
    def apart_since_ns(self) -> int | None:
        """When the oldest step that is under way beside the ticks was begun, if there is one. Any thread."""

    @property
    def can_rewind(self) -> bool:
        """Whether an earlier state can save a run that went astray."""

    @property
    def has_failed(self) -> bool:
        """Whether the device has failed for good: nothing will be refined any more."""

    @property
    def history_bytes(self) -> int:
        """Memory that the best and the earlier states of all slots take."""

    def warm_up(self) -> None:
        """Run everything once with the plugin's example, and learn how long it takes.

        Raises:
            SageError: What the plugin fails with.
        """

    def make_way(self, newcomers: Sequence[Job]) -> list[Finished]:
        """End the runs whose deadline cannot wait until newcomers are encoded and all have taken a step.

        They get their best answer so far.
        """

    def admit(self, jobs: Sequence[Job]) -> list[Finished]:
        """Encode up to ``free`` jobs and take them in.

        Returns:
            Jobs that ended at their first state, as far as that is known already, or have none.
        """

    def tick(self) -> list[Finished]:
        """Refine for a moment; returns the refinements that have ended."""

    def peek(self, run_id: int) -> Finished | None:
        """The best answer so far of a run that goes on; None when it is in no slot."""

    def abort(self, reason: str) -> dict[int, str]:
        """End every refinement without an answer; what each run's record says it ended by, by its number.

        One that had halted already, and was not handed out, keeps its own reason.
        """
