"""The rival of the whole model: Otsu's threshold, which needs no training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BACKGROUND, NUCLEUS, BOUNDARY = 0, 1, 2


def otsu_threshold(values: NDArray[np.uint8]) -> int:
    """Find the grey level that splits the histogram with the largest variance between the two sides.

    N. Otsu, "A threshold selection method from gray-level histograms", 1979. The level
    itself belongs to the lower side.
    """
    histogram = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = histogram.cumsum()
    sum_below = (histogram * np.arange(256)).cumsum()
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = sum_below / below - (sum_below[-1] - sum_below) / above
    return int(np.nan_to_num(below * above * gap**2).argmax())


def otsu_segment(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Segment uint8 [H, W, 3] into background, nucleus and a ring of one pixel; uint8 [H, W].

    The rarer side of the threshold is called nuclei, which serves dark and bright nuclei alike.
    """
    grey = np.asarray(Image.fromarray(frame).convert("L"))
    nuclei = grey > otsu_threshold(grey)
    if nuclei.mean() > 0.5:
        nuclei = ~nuclei
    classes = np.where(nuclei, NUCLEUS, BACKGROUND).astype(np.uint8)
    classes[nuclei & ~_eroded(nuclei)] = BOUNDARY
    return classes


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1, mode="edge")
    inner: NDArray[np.bool_] = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1]
    return inner & padded[1:-1, :-2] & padded[1:-1, 2:]
