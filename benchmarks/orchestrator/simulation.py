"""A clock that moves when told, and plugins whose steps take a given time and follow a given course."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sage_edge import HRM, Encoded, HaltPolicy, Invariants, LatentPlugin, Settings


class SimulatedClock:
    """Stands still until somebody works."""

    def __init__(self) -> None:
        self.now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def unix_ns(self) -> int:
        return 1_700_000_000_000_000_000 + self.now_ns

    def sleep(self, duration_s: float) -> None:
        self.advance_ms(duration_s * 1e3)

    def advance_ms(self, duration_ms: float) -> None:
        self.now_ns += round(duration_ms * 1e6)


@dataclass(frozen=True, slots=True)
class Costs:
    """What a batch of n takes: ``fixed_ms + row_ms * n``, for first states and for steps."""

    encode_fixed_ms: float
    encode_row_ms: float
    step_fixed_ms: float
    step_row_ms: float

    def encode_ms(self, rows: int) -> float:
        return self.encode_fixed_ms + self.encode_row_ms * rows

    def step_ms(self, rows: int) -> float:
        return self.step_fixed_ms + self.step_row_ms * rows


class ReplayPlugin(LatentPlugin):
    """Refinements whose energies are given: an input is the course E_norm_0 .. E_norm_n of one.

    State space: float32 [1], the place on the course; a rewind or a branch goes along the same course.
    Noise model: none.
    Energy: as it was recorded.
    Coherence contribution: the fall of that energy.
    """

    version, backend = "1", "simulated"
    invariants = Invariants("place-on-a-course", "none", "recorded", "none")
    lo, hi, step_size, noise_sigma = 0.0, 1e6, 1.0, 0.0

    def __init__(
        self,
        name: str,
        clock: SimulatedClock,
        costs: Costs,
        *,
        halting: HaltPolicy,
        longest: int,
        jitter: Callable[[], float] = lambda: 1.0,
    ) -> None:
        super().__init__()
        self.name, self.halting = name, halting
        self._clock, self._costs, self._jitter, self._longest = clock, costs, jitter, longest
        self.state_shape: tuple[int, ...] = (1,)
        self.context_shapes: Mapping[str, tuple[int, ...]] = {"course": (longest + 1,)}
        #: Set to make the next step fail in that way: ``slow``, ``nan`` or ``crash``.
        self.fault: str | None = None

    def prepare(self, x: Sequence[float]) -> np.ndarray:
        course = np.asarray(x, np.float32)
        return np.pad(course, (0, self._longest + 1 - len(course)), mode="edge")

    def example(self) -> np.ndarray:
        return self.prepare([1.0])

    def encode(self, inputs: Sequence[np.ndarray]) -> Encoded:
        self._clock.advance_ms(self._costs.encode_ms(len(inputs)) * self._jitter())
        course = np.stack(inputs)
        return Encoded(np.zeros((len(inputs), 1), np.float32), {"course": course}, course[:, :1])

    def advance(
        self, z: np.ndarray, context: Mapping[str, np.ndarray], step_size: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        fault, self.fault = self.fault, None
        self._clock.advance_ms(
            self._costs.step_ms(len(z)) * self._jitter() * (50.0 if fault == "slow" else 1.0)
        )
        if fault == "crash":
            raise RuntimeError("an injected fault")
        terms = self.energies(z + step_size[:, None], context)
        return np.ones_like(z), np.full_like(terms, np.nan) if fault == "nan" else terms

    def energies(self, z: np.ndarray, context: Mapping[str, np.ndarray]) -> np.ndarray:
        places = np.minimum(z[:, 0].astype(int), self._longest)
        return np.take_along_axis(context["course"], places[:, None], axis=1)


def open_simulated(clock: SimulatedClock, plugins: Sequence[ReplayPlugin], **settings: Any) -> HRM:
    """The real orchestrator over simulated plugins, warmed up; ``serve_once`` drives it."""
    chosen: dict[str, Any] = {"telemetry_dir": "", "board_period_s": 0.0, "power_w": 1.0, "rewinds": 0}
    hrm = HRM(Settings(**{**chosen, **settings}), {plugin.name: plugin for plugin in plugins}, clock)
    hrm.warm_up()
    return hrm
