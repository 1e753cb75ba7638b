"""One latent step in double precision."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Step(NamedTuple):
    z: NDArray[np.float64]
    residual: float
    E: float


def latent_step(
    z: NDArray[np.float32],
    delta: NDArray[np.float32],
    *,
    step_size: float,
    lo: float,
    hi: float,
    energy_terms: NDArray[np.float32],
) -> Step:
    """The next state of one slot."""
    before = z.astype(np.float64)
    after = np.clip(before + step_size * delta.astype(np.float64), lo, hi)
    change = after - before
    residual = float(np.linalg.norm(change)) / max(float(np.linalg.norm(after)), 1e-12)
    return Step(after, residual, float(np.mean(energy_terms, dtype=np.float64)))
