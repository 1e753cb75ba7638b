"""Building plans ahead of time, with the progress that the command line and ``/readyz`` show."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sage_edge.clock import Clock
from sage_edge.errors import EngineError
from sage_edge.irp.recipe import Recipe, plan_name
from sage_edge.runtime.plans import PlanKey, PlanStore, Verdict

#: Seconds between two looks at whether another builder of the same folder has finished.
_TURN_S = 0.2


class Progress(NamedTuple):
    """How far a build has come.

    Attributes:
        plan: The plan in work; empty before the first and after the last.
        done: Plans that are finished.
        total: Plans to build.
        fraction: Of all the work, in [0, 1]; every plan counts the same.
        elapsed_s: Since the start.
        remaining_s: Estimated from the pace so far; None while nothing is known.
    """

    plan: str
    done: int
    total: int
    fraction: float
    elapsed_s: float
    remaining_s: float | None

    def describe(self) -> str:
        """In a few words, for people."""
        if not self.total:
            return "looking for what has to be built"
        if self.done == self.total:
            return f"{self.total} plans built in {self.elapsed_s:.0f} s"
        left = "estimating" if self.remaining_s is None else f"about {self.remaining_s:.0f} s left"
        return f"{self.plan} ({self.done + 1} of {self.total}), {self.elapsed_s:.0f} s, {left}"


class BuildState:
    """A build's progress, and the way to call it off.

    Threads: one builder writes; anyone reads and cancels.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start_ns = clock.monotonic_ns()
        self._at: tuple[str, int, int, float] = ("", 0, 0, 0.0)
        self._cancelled = threading.Event()

    def begin(self, plan: str, done: int, total: int) -> None:
        """Say which plan comes next.

        Raises:
            EngineError: The build was called off.
        """
        self._at = (plan, done, total, 0.0)
        self._refuse_if_cancelled()

    def advance(self, fraction: float) -> bool:
        """Say how far the plan in work has come, in [0, 1]; returns whether to go on."""
        plan, done, total, _ = self._at
        self._at = (plan, done, total, fraction)
        return not self._cancelled.is_set()

    def end(self) -> None:
        """Say that the last plan is finished."""
        _, _, total, _ = self._at
        self._at = ("", total, total, 0.0)

    def cancel(self) -> None:
        """Call the build off; it ends at the builder's next step."""
        self._cancelled.set()

    def wait_turn(self) -> None:
        """Wait a moment for another builder.

        Raises:
            EngineError: The build was called off.
        """
        self._cancelled.wait(_TURN_S)
        self._refuse_if_cancelled()

    def _refuse_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise EngineError("the build was called off; finished plans are kept")

    def snapshot(self) -> Progress:
        """Where the build stands now."""
        plan, done, total, fraction = self._at
        elapsed_s = (self._clock.monotonic_ns() - self._start_ns) / 1e9
        overall = (done + fraction) / total if total else 0.0
        remaining_s = elapsed_s * (1 - overall) / overall if overall else None
        return Progress(plan, done, total, overall, elapsed_s, remaining_s)


class Built(NamedTuple):
    """A serialized plan, and what the builder measured; empty where it keeps no timing cache."""

    plan: bytes
    timing_cache: bytes


class Machine(NamedTuple):
    """What builds plans here, and for what.

    Attributes:
        tensorrt: Module and version, such as "tensorrt-10.3.0".
        sm: The GPU's compute capability, such as "8.7".
        builder: Version of our own way to build.
        build: (onnx, width, advance, timing_cache) -> plan; ``advance`` is told the fraction that is done and
            returns whether to go on.
    """

    tensorrt: str
    sm: str
    builder: int
    build: Callable[[bytes, int, Callable[[float], bool], bytes], Built]


class Wanted(NamedTuple):
    """A plan that a recipe asks for, with the key that it must have here."""

    name: str
    recipe: Recipe
    key: PlanKey


class PlanBuilder:
    """Builds what a folder lacks for one machine.

    Threads: ``build`` from one at a time; other processes wait for their turn.
    """

    def __init__(self, store: PlanStore, machine: Machine, clock: Clock) -> None:
        self.store = store
        self.machine = machine
        self._clock = clock

    def wanted(self, recipes: Sequence[Recipe]) -> list[Wanted]:
        """Every plan that these recipes ask for on this machine."""
        tensorrt, sm, builder, _ = self.machine
        return [
            Wanted(
                plan_name(recipe, width),
                recipe,
                PlanKey(recipe.sha256, recipe.precision, width, tensorrt, sm, builder),
            )
            for recipe in recipes
            for width in recipe.widths
        ]

    def verdicts(self, recipes: Sequence[Recipe]) -> dict[str, Verdict]:
        """What each of these plans is worth here, by name."""
        return {plan.name: self.store.judge(plan.name, plan.key) for plan in self.wanted(recipes)}

    def build(self, recipes: Sequence[Recipe], state: BuildState) -> list[str]:
        """Build every plan that is missing, stale, foreign or damaged; returns their names.

        Raises:
            EngineError: A file is not the recipe's, a plan cannot be built, the folder cannot be written
                to, or the build was called off.
        """
        with self.store.locked(state.wait_turn):
            # Judged inside the lock: whoever held it before may have built the same.
            due = [
                plan
                for plan in self.wanted(recipes)
                if self.store.judge(plan.name, plan.key).state != "ready"
            ]
            for number, plan in enumerate(due):
                state.begin(plan.name, number, len(due))
                self._build_one(plan, state)
            state.end()
        return [plan.name for plan in due]

    def _build_one(self, plan: Wanted, state: BuildState) -> None:
        start_ns = self._clock.monotonic_ns()
        tensorrt, sm, _, build = self.machine
        cache = self.store.timing_cache(tensorrt, sm)
        try:
            built = build(plan.recipe.read(), plan.key.width, state.advance, cache)
        except EngineError as exc:
            raise EngineError(f"{plan.name}: {exc}") from exc
        self.store.commit(
            plan.name,
            plan.key,
            built.plan,
            built_unix_s=self._clock.unix_ns() // 10**9,
            build_s=(self._clock.monotonic_ns() - start_ns) / 1e9,
        )
        self.store.keep_timing_cache(tensorrt, sm, built.timing_cache)
