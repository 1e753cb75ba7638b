"""How much noise a step may add, by the number of the state that it starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class NoiseSchedule(Protocol):
    """A standard deviation for each step, in the units of the plugin's noise model."""

    def __call__(self, step_idx: int) -> float:
        """The noise of the step that leaves state ``step_idx``; 0 for none."""


@dataclass(frozen=True, slots=True)
class ConstantNoise:
    """The same for every step.

    Attributes:
        sigma: Standard deviation, >= 0.
    """

    sigma: float = 0.0

    def __call__(self, step_idx: int) -> float:
        """See NoiseSchedule."""
        return self.sigma


@dataclass(frozen=True, slots=True)
class AnnealedNoise:
    """Less with each step: ``max(sigma * ratio ** step_idx, least)``.

    Attributes:
        sigma: Of the first step, >= 0.
        ratio: What is left of it after each step, in (0, 1].
        least: Where it stops falling, >= 0.
    """

    sigma: float
    ratio: float = 0.7
    least: float = 0.0

    def __call__(self, step_idx: int) -> float:
        """See NoiseSchedule."""
        return max(self.sigma * self.ratio**step_idx, self.least)
