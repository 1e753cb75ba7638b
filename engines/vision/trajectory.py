"""Runs the shipped graphs step by step and keeps what every step did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from engines.vision.data import VOID
from sage_edge.quality import confusion

Floats = NDArray[np.float32]
Stepper = Callable[[Floats, Floats, int], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Trajectories:
    """What N frames went through in K steps, step 0 being the glance.

    ``energies`` is float64 [N, K + 1], the mean over the tiles; ``confusions`` is int64
    [N, K + 1, classes, classes].
    """

    energies: NDArray[np.float64]
    confusions: NDArray[np.int64]


class Graphs:
    """The four ONNX graphs of a model, on the CPU.

    Args:
        folder: Where ``{encoder,step,energy,decoder}.PRECISION.onnx`` are.
        limit: The state is clipped to [-limit, limit].
        precision: ``fp32`` or ``fp16``.
        threads: How many threads one run may take.
    """

    def __init__(self, folder: Path, limit: float, precision: str = "fp32", threads: int = 2) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.limit = limit
        self.precision = precision
        self._sessions = {
            name: onnxruntime.InferenceSession(folder / f"{name}.{precision}.onnx", options)
            for name in ("encoder", "step", "energy", "decoder")
        }

    def run(self, graph: str, **inputs: Floats) -> list[Any]:
        """Run one graph on named inputs and return all its outputs."""
        outputs: list[Any] = self._sessions[graph].run(None, inputs)
        return outputs

    def encode(self, frames: NDArray[np.uint8]) -> tuple[Floats, Floats, Floats]:
        """Glance at uint8 frames [B, H, W, 3]; return z, ctx and energy."""
        planes = np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32) / 255
        z, ctx, energy = self.run("encoder", frame=planes)
        return z, ctx, energy

    def step(self, z: Floats, ctx: Floats, index: int) -> tuple[Floats, Floats]:
        """Take one step of size 1; return the next z and its energy. ``index`` does not matter."""
        delta, energy = self.run("step", z=z, ctx=ctx, step_size=np.ones(len(z), np.float32))
        return np.clip(z + delta, -self.limit, self.limit), energy

    def classify(self, z: Floats) -> NDArray[np.int64]:
        """Return the likeliest class of every pixel: int64 [B, H, W]."""
        (logits,) = self.run("decoder", z=z)
        classes: NDArray[np.int64] = logits.argmax(1)
        return classes


def follow(
    graphs: Graphs,
    frames: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    *,
    classes: int,
    steps: int,
    stepper: Stepper | None = None,
) -> Trajectories:
    """Refine every frame for all its steps, one frame at a time.

    Args:
        graphs: The model.
        frames: uint8 [N, H, W, 3].
        labels: uint8 [N, H, W], VOID where a pixel does not count.
        classes: How many classes there are.
        steps: K.
        stepper: Takes (z, ctx, index of the step), returns (next z, its energy); by default the model's own.
    """
    stepper = stepper or graphs.step
    energies = np.zeros((len(frames), steps + 1))
    confusions = np.zeros((len(frames), steps + 1, classes, classes), np.int64)
    for n in tqdm(range(len(frames)), "follow", leave=False):
        z, ctx, energy = graphs.encode(frames[n : n + 1])
        for k in range(steps + 1):
            if k > 0:
                z, energy = stepper(z, ctx, k - 1)
            energies[n, k] = energy.mean(dtype=np.float64)
            confusions[n, k] = confusion(labels[n : n + 1], graphs.classify(z), classes, VOID)
    return Trajectories(energies, confusions)
