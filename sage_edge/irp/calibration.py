"""What an energy promises: the calibrated map from E_norm to expected quality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class TrustTable:
    """Piecewise linear between knots and flat outside them.

    It is data and no code, so that the telemetry can evaluate it too.

    Attributes:
        E_norm: Knots, ascending.
        quality: Expected quality in [0, 1] at each knot; it never rises.
    """

    E_norm: tuple[float, ...]
    quality: tuple[float, ...]

    def __call__(self, E_norm: float) -> float:
        """Expected quality in [0, 1] of an answer with this E_norm; 0 for one that is not finite."""
        return float(np.interp(E_norm, self.E_norm, self.quality)) if np.isfinite(E_norm) else 0.0

    def E_norm_for(self, quality: float) -> float:
        """The largest E_norm whose expected quality reaches ``quality``; -inf when none does."""
        good = [i for i, knot in enumerate(self.quality) if knot >= quality]
        if not good:
            return -np.inf
        last = good[-1]
        if last == len(self.quality) - 1:
            return float(np.inf)
        q0, q1 = self.quality[last], self.quality[last + 1]
        e0, e1 = self.E_norm[last], self.E_norm[last + 1]
        return e0 + (e1 - e0) * (q0 - quality) / (q0 - q1)
