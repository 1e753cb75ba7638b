"""Where the states of a refiner's slots live, and how one tick moves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sage_edge import native
from sage_edge.errors import SageError
from sage_edge.irp import Answer
from sage_edge.runtime.refiner import Job

#: Tells the telemetry of what a plugin adds to the record of a state: run, step, fields.
Annotate = Callable[[int, int, Mapping[str, Any]], None]


class First(NamedTuple):
    """What is known of one first state.

    Attributes:
        E: Its energy.
        feasible: Whether it satisfies the constraints.
        gap: Its optimality gap.
        halt: Code of the reason for which the plugin itself ends the run here; 0: it goes on.
    """

    E: float
    feasible: bool = True
    gap: float = 0.0
    halt: int = 0


class Restored(NamedTuple):
    """An earlier state that a slot went back to."""

    E: float
    feasible: bool = True


class Stepped(NamedTuple):
    """What is known after the costly part of a tick.

    Attributes:
        rows: Whose next state is known; the steps of the others are still under way, or had no turn.
        failed: The rows that cannot go on, with the reason.
    """

    rows: list[int]
    failed: dict[int, SageError]


class SlotStates(Protocol):
    """The states of one refiner's slots: rows 0 .. live-1 are in use.

    What goes wrong with one row is that row's own error; the others go on. How long one row takes is its own
    matter too, where rows are stepped one by one.

    Threads: every method belongs to the refiner's thread.

    Attributes:
        capacity: Slots.
        can_rewind: Whether an earlier state can save a run that went astray.
    """

    capacity: int
    can_rewind: bool

    @property
    def left_behind(self) -> int:
        """Runs that have ended while a step of theirs went on: it still takes their place."""

    @property
    def apart_since_ns(self) -> int | None:
        """When the oldest step that is under way beside the ticks was begun, if there is one. Any thread."""

    @property
    def history_bytes(self) -> int:
        """Memory that the best and the earlier states of all slots take."""

    def load(self, first: int, jobs: Sequence[Job]) -> list[First | SageError]:
        """Make the first states of jobs, and put those that could be made into the rows from ``first`` on."""

    def rewind(self, slot: int, attempt: int, table: native.SlotTable) -> Restored:
        """Put a slot back to the (``attempt`` + 1)-th lowest of the states kept."""

    def advance(self, live: int, now_ns: Callable[[], int]) -> Stepped:
        """The costly part of a tick: find out where live rows go. The rows stay as they are.

        Returns soon, even where a step lasts: then without that row.
        """

    def settle(
        self,
        table: native.SlotTable,
        rows: Sequence[int],
        *,
        now_ns: int,
        margins_ns: Sequence[int],
        charges_us: Sequence[float],
    ) -> list[int]:
        """Keep rows as earlier states, move them, let ``table`` decide and publish their records.

        Args:
            table: The runs.
            rows: Those of ``advance``.
            now_ns: Monotonic time.
            margins_ns: For each row, what its next step and the answer take.
            charges_us: For each row, the compute of its step.

        Returns:
            The rows whose run ends with its new state.
        """

    def answers(self, slots: Sequence[int], is_current: Sequence[bool]) -> list[Answer | SageError]:
        """Decode the best state of each slot, which is the current one where ``is_current``."""

    def leave(self, slot: int, is_current: bool) -> None:
        """The run in a slot is answered: keep what the next request of its stream begins with."""

    def remove(self, slot: int, last: int) -> None:
        """The last live row takes the place of one that has ended, which may be itself."""
