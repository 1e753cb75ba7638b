"""What could be watched to decide when a frame is done, and what each would save at the same mean compute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engines.vision.data import VOID, LabelledFrames
from engines.vision.trajectory import Graphs
from sage_edge.quality import confusion

Floats = NDArray[np.float64]
#: Signals that fall as a frame nears its end; the others are turned round.
NAMES = ("energy", "gain", "residual", "acceleration", "max_softmax", "entropy", "change")


@dataclass(frozen=True)
class Watched:
    """What N frames went through in K steps.

    Attributes:
        signals: float64 [N, K + 1] by name; lower says nearer to the end. Where a signal needs more steps
            than were taken it is infinite.
        confusions: int64 [N, K + 1, classes, classes].
    """

    signals: dict[str, Floats]
    confusions: NDArray[np.int64]


def watch(graphs: Graphs, data: LabelledFrames, classes: int, steps: int) -> Watched:
    """Refine every frame for all its steps and note every signal at every state."""
    signals = {name: np.full((len(data), steps + 1), np.inf) for name in NAMES}
    confusions = np.zeros((len(data), steps + 1, classes, classes), np.int64)
    for n in tqdm(range(len(data)), "watch"):
        z, ctx, energy = graphs.encode(data.frames[n : n + 1])
        moved = last_moved = labels = None
        for k in range(steps + 1):
            before, energy_before = z, energy
            if k > 0:
                z, energy = graphs.step(z, ctx, k - 1)
                last_moved, moved = moved, z - before
                signals["gain"][n, k] = energy_before.mean() - energy.mean()
                signals["residual"][n, k] = np.linalg.norm(moved) / np.linalg.norm(before)
            if last_moved is not None:
                signals["acceleration"][n, k] = np.linalg.norm(moved - last_moved) / np.linalg.norm(before)
            (logits,) = graphs.run("decoder", z=z)
            odds = np.exp(logits[0] - logits[0].max(axis=0))
            probabilities = odds / odds.sum(axis=0)
            now = probabilities.argmax(axis=0)
            signals["energy"][n, k] = energy.mean()
            signals["max_softmax"][n, k] = 1 - probabilities.max(axis=0).mean()
            signals["entropy"][n, k] = -(probabilities * np.log(probabilities + 1e-12)).sum(axis=0).mean()
            if labels is not None:
                signals["change"][n, k] = (now != labels).mean()
            labels = now
            confusions[n, k] = confusion(data.labels[n], now, classes, VOID)
    return Watched(signals, confusions)


def stops_at_mean(signal: Floats, mean_steps: float) -> NDArray[np.int64]:
    """Find where each frame stops when the threshold is set so that the mean is nearest to ``mean_steps``.

    A frame stops after the first step at which its signal is at or below the threshold, or at the last.

    Args:
        signal: float64 [N, K + 1].
        mean_steps: Of all frames; no label is needed to reach it.
    """
    levels = np.unique(signal[np.isfinite(signal)])
    return min((first_below(signal, level) for level in levels), key=lambda s: abs(s.mean() - mean_steps))


def first_below(signal: Floats, level: float) -> NDArray[np.int64]:
    """Return the first step, not counting the glance, with a signal of at most ``level``; else the last."""
    holds = signal[:, 1:] <= level
    holds[:, -1] = True
    stops: NDArray[np.int64] = holds.argmax(axis=1) + 1
    return stops


def oracle(confusions: NDArray[np.int64], mean_steps: float) -> NDArray[np.int64]:
    """Find the stops of one who knows how many pixels each state has wrong: int64 [N].

    Steps are given one by one to the frame that gains most by the best of its next stops, per step, until
    the mean is reached.
    """
    wrong = confusions.sum(axis=(2, 3)) - np.trace(confusions, axis1=2, axis2=3)
    frames, states = wrong.shape
    stops = np.ones(frames, np.int64)
    while stops.sum() < round(mean_steps * frames):
        best = (-np.inf, 0, 0)
        for n in np.flatnonzero(stops < states - 1):
            ahead = np.arange(stops[n] + 1, states)
            rate = (wrong[n, stops[n]] - wrong[n, ahead]) / (ahead - stops[n])
            best = max(best, (float(rate.max()), int(n), int(ahead[rate.argmax()])))
        stops[best[1]] = best[2]
    return stops


def picked(confusions: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the confusion of every frame where it stopped: [N, classes, classes]."""
    chosen: NDArray[np.int64] = confusions[np.arange(len(stops)), stops]
    return chosen


def at_fixed(confusions: NDArray[np.int64], mean_steps: float) -> Floats:
    """Return what stopping all frames alike gives, in expectation when the mean is between two steps."""
    low = int(np.floor(mean_steps))
    high = min(low + 1, confusions.shape[1] - 1)
    share = mean_steps - low
    mixed: Floats = (1 - share) * confusions[:, low] + share * confusions[:, high]
    return mixed
