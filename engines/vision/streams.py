"""How much of a stream's last answer its next frame may keep: chosen on frames moved and made noisy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engines.vision.config import Recipe
from engines.vision.data import VOID, LabelledFrames
from engines.vision.trajectory import Floats, Graphs
from sage_edge.plugins.vision_model import StreamRule
from sage_edge.quality import confusion, mean_iou

#: The next frame of a stream shows the scene moved by so many pixels to the side, under fresh noise.
SHIFTS_PX = (0, 1, 2, 4, 8)
NOISE_LEVELS = 2.0  # standard deviation, of 255
#: Mean absolute difference of the logits of two first guesses, from which one is chosen.
TOLERANCES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05)
#: What keeping tiles may cost, in mIoU over all those second frames.
MAX_LOSS = 0.001
FRAMES = 12


def moved(
    frame: NDArray[np.uint8], labels: NDArray[np.uint8], shift_px: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Move a scene to the right; what comes in repeats the edge and does not count.

    Args:
        frame: uint8 [H, W, 3].
        labels: uint8 [H, W].
        shift_px: Not negative.
        rng: Of the noise.

    Returns:
        Frame and labels of the same shapes.
    """
    width = frame.shape[1]
    columns = np.maximum(np.arange(width) - shift_px, 0)
    noisy = frame[:, columns] + NOISE_LEVELS * rng.standard_normal(frame.shape)
    known = np.where(np.arange(width) < shift_px, np.uint8(VOID), labels[:, columns])
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8), known


def settle(graphs: Graphs, z: Floats, ctx: Floats, eps: float, max_steps: int) -> tuple[Floats, int]:
    """Refine one latent [1, Z, h, w] by the range rule with K = 1; returns the last state and its steps."""
    (energy,) = graphs.run("energy", z=z, ctx=ctx)
    before = energy.mean(dtype=np.float64)
    for step in range(1, max_steps + 1):
        z, energy = graphs.step(z, ctx, step)
        after = energy.mean(dtype=np.float64)
        if abs(before - after) < eps:
            break
        before = after
    return z, step


def choose_tolerance(graphs: Graphs, block: LabelledFrames, recipe: Recipe, eps: float) -> float:
    """Find the largest tolerance that costs at most MAX_LOSS of the mIoU of beginning anew; 0 if none does.

    Args:
        graphs: The model.
        block: Labelled frames, of which FRAMES are taken, evenly.
        recipe: Its classes, tiles and steps.
        eps: Where a run halts, in units of energy.
    """
    tolerances = (None, *TOLERANCES)
    counts = {tolerance: np.zeros((len(recipe.data.classes),) * 2, np.int64) for tolerance in tolerances}
    for first, earlier, ctx, best, labels in tqdm(list(_pairs(graphs, block, recipe, eps)), "streams"):
        for tolerance, total in counts.items():
            z = first
            if tolerance is not None:
                rule = StreamRule(recipe.net.tile_cells, tolerance)
                z = np.where(rule.unchanged(first[0], earlier[0]), best, first)
            z, _ = settle(graphs, z, ctx, eps, recipe.net.max_steps)
            counts[tolerance] = total + confusion(labels, graphs.classify(z)[0], len(total), VOID)
    floor = mean_iou(counts.pop(None)) - MAX_LOSS
    return next((float(t) for t in TOLERANCES if mean_iou(counts[t]) >= floor), 0.0)


Pair = tuple[Floats, Floats, Floats, Floats, NDArray[np.uint8]]


def _pairs(graphs: Graphs, block: LabelledFrames, recipe: Recipe, eps: float) -> Iterator[Pair]:
    """Second frames: first guess, the first frame's guess, context, the first frame's answer, labels."""
    rng = np.random.default_rng(recipe.train.seed)
    chosen = np.unique(np.linspace(0, len(block) - 1, FRAMES).astype(int))
    for n in chosen:
        earlier, ctx, _ = graphs.encode(block.frames[n : n + 1])
        best, _ = settle(graphs, earlier, ctx, eps, recipe.net.max_steps)
        for shift_px in SHIFTS_PX:
            frame, labels = moved(block.frames[n], block.labels[n], shift_px, rng)
            first, ctx, _ = graphs.encode(frame[None])
            yield first, earlier, ctx, best, labels
