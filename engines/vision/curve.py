"""Draws how the parts of the loss fell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

SMOOTH_OVER = 25


def draw_curve(log: Path, out: Path) -> None:
    """Plot every part of ``losses.jsonl`` over the iterations, averaged over a few, as a PNG."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    figure = Figure(figsize=(8, 4.5), layout="tight")
    axes = figure.subplots()
    for name in sorted({key for line in lines for key in line} - {"iteration"}):
        at, values = zip(*((line["iteration"], line[name]) for line in lines if name in line), strict=True)
        window = min(SMOOTH_OVER, len(values))
        smooth = np.convolve(values, np.full(window, 1 / window), "valid")
        axes.plot(at[window - 1 :], smooth, label=name)
    axes.set(xlabel="iteration", ylabel=f"loss, mean of {SMOOTH_OVER}", yscale="log")
    axes.legend()
    figure.savefig(out, dpi=100)
