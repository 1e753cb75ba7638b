"""An endless stream of training batches: shuffled, turned, and half of the frames made hard."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.vision.corrupt import corrupt, draw_corruption
from engines.vision.data import LabelledFrames

HARD_SHARE = 0.5


def batches(data: LabelledFrames, batch: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (frames float32 [B, 3, H, W] in [0, 1], labels int64 [B, H, W]) for ever."""
    while True:
        order = rng.permutation(len(data))
        for start in range(0, len(data) - batch + 1, batch):
            pairs = [_vary(data.frames[i], data.labels[i], rng) for i in order[start : start + batch]]
            frames, labels = zip(*pairs, strict=True)
            yield to_input(np.stack(frames)), torch.from_numpy(np.stack(labels)).long()


def to_input(frames: NDArray[np.uint8]) -> Tensor:
    """Turn uint8 [B, H, W, 3] into what the encoder takes: float32 [B, 3, H, W] in [0, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def _vary(
    frame: NDArray[np.uint8], labels: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    turns = int(rng.integers(4))
    frame, labels = np.rot90(frame, turns), np.rot90(labels, turns)
    if rng.random() < 0.5:
        frame, labels = frame[:, ::-1], labels[:, ::-1]
    if rng.random() < HARD_SHARE:
        frame = corrupt(np.ascontiguousarray(frame), draw_corruption(rng), rng)
    return np.ascontiguousarray(frame), np.ascontiguousarray(labels)
