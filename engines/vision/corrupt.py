"""What makes a frame hard: little light, its shot noise, and lost focus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter


@dataclass(frozen=True)
class Corruption:
    """One way to spoil a frame. ``photons`` is what the brightest possible pixel would collect."""

    exposure: float
    photons: float
    blur_px: float


def draw_corruption(rng: np.random.Generator) -> Corruption:
    """Draw a corruption from mild to severe."""
    return Corruption(
        exposure=float(np.exp(rng.uniform(np.log(0.3), np.log(1.4)))),
        photons=float(np.exp(rng.uniform(np.log(30.0), np.log(1000.0)))),
        blur_px=float(rng.choice([0.0, rng.uniform(0.4, 1.6)])),
    )


def corrupt(frame: NDArray[np.uint8], corruption: Corruption, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, then expose, then count photons.

    Args:
        frame: uint8 [H, W, 3], RGB.
        corruption: How much of each.
        rng: Where the shot noise comes from.

    Returns:
        uint8 [H, W, 3].
    """
    blurred = Image.fromarray(frame).filter(ImageFilter.GaussianBlur(corruption.blur_px))
    light = np.asarray(blurred, np.float32) / 255 * corruption.exposure
    counted = rng.poisson(light * corruption.photons) / corruption.photons
    return np.clip(np.rint(counted * 255), 0, 255).astype(np.uint8)


def corrupt_all(frames: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Spoil every frame of [N, H, W, 3] in its own way; the same seed spoils them the same way again."""
    rng = np.random.default_rng(seed)
    return np.stack([corrupt(frame, draw_corruption(rng), rng) for frame in frames])
