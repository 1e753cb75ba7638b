"""One latent step in double precision, and its noise one number at a time."""

from __future__ import annotations

import math
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
    energy_terms: NDArray[np.float32] | None = None,
    residual_weight: float = 0.0,
    noise: NDArray[np.float64] | float = 0.0,
) -> Step:
    """The next state of one slot; ``noise`` is what is added to it, sigma included."""
    before = z.astype(np.float64)
    after = np.clip(before + step_size * delta.astype(np.float64) + noise, lo, hi)
    change = after - before
    residual = float(np.linalg.norm(change)) / max(float(np.linalg.norm(after)), 1e-12)
    terms = 0.0 if energy_terms is None else float(np.mean(energy_terms, dtype=np.float64))
    return Step(after, residual, terms + residual_weight * float(np.mean(change**2)))


def normals(count: int, *, seed: int, run_id: int, step: int) -> NDArray[np.float64]:
    """N(0, 1) for elements 0 .. count: Philox4x32-10, then Box and Muller on 24 bits a number."""
    values: list[float] = []
    for block in range(-(-count // 4)):
        words = philox4x32((block, step, run_id & 0xFFFFFFFF, run_id >> 32), (seed & 0xFFFFFFFF, seed >> 32))
        for first, second in (words[:2], words[2:]):
            radius = math.sqrt(-2 * math.log(((first >> 8) + 1) / 2**24))
            angle = 2 * math.pi * (second >> 8) / 2**24
            values += [radius * math.cos(angle), radius * math.sin(angle)]
    return np.array(values[:count])


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & 0xFFFFFFFF, (a >> 32) ^ c3 ^ k1, a & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3
