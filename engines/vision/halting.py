"""Where a trajectory would halt, and what that costs: the range rule, replayed on measured energies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.vision.trajectory import Trajectories
from sage_edge.quality import mean_iou


def halting_steps(energies: NDArray[np.float64], K: int, eps: float) -> NDArray[np.int64]:
    """Find where each trajectory halts: max - min of the last ``K`` + 1 energies below ``eps``.

    Args:
        energies: [N, steps + 1], normalised.
        K: The window, in steps.
        eps: The threshold.

    Returns:
        int64 [N], the number of steps taken; all steps where the rule never holds.
    """
    frames, states = energies.shape
    windows = np.lib.stride_tricks.sliding_window_view(energies, K + 1, axis=1)
    holds = np.concatenate((np.ptp(windows, axis=2) < eps, np.ones((frames, 1), bool)), axis=1)
    return np.minimum(holds.argmax(axis=1) + K, states - 1)


def answer_steps(energies: NDArray[np.float64], halted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the answer of each trajectory: its state of lowest energy up to the halt; int64 [N]."""
    seen = np.arange(energies.shape[1]) <= halted[:, None]
    answers: NDArray[np.int64] = np.where(seen, energies, np.inf).argmin(axis=1)
    return answers


def confusion_of(run: Trajectories, halted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the confusion of every frame's answer: int64 [N, classes, classes]."""
    answers = answer_steps(run.energies, halted)
    chosen: NDArray[np.int64] = run.confusions[np.arange(len(answers)), answers]
    return chosen


def mean_iou_at(run: Trajectories, halted: NDArray[np.int64]) -> float:
    """Return the mIoU over all pixels of all answers."""
    return mean_iou(confusion_of(run, halted).sum(axis=0))


def compute_saved(macs: dict[str, int], mean_steps: float, max_steps: int) -> float:
    """Return the compute of all steps over that of ``mean_steps``, encoder and decoder counted in both."""
    once = macs["encoder"] + macs["decoder"]
    return (once + max_steps * macs["step"]) / (once + mean_steps * macs["step"])
