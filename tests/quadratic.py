"""A plugin with nothing learned: it moves towards a target. Exact, fast, and predictable by hand."""

from __future__ import annotations

import numpy as np

from sage_edge import Answer, Encoded, Invariants, IRPPlugin, IRPState, LatentSlots
from sage_edge.errors import ShapeError
from sage_edge.native import HaltPolicy
from tests.host_loop import array_at


class QuadraticPlugin(IRPPlugin):
    """Halve the distance to a target at each step.

    State space: float32 [n].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target; a quarter of the last one after each step.
    Coherence contribution: the fall of that distance.
    """

    name = "quadratic"
    version = "1"
    invariants = Invariants("vector", "gaussian", "mean-squared-distance", "squared units")
    halting = HaltPolicy(K=2, eps=1e-3, max_steps=20)
    backend = "numpy"
    model_sha256 = None
    carry_over = None
    lo, hi, step_size, noise_sigma = -100.0, 100.0, 0.5, 1.0

    def __init__(self, size=6, before_step=lambda: None):
        self.state_shape = (size,)
        self.context_shapes = {"target": (size,)}
        self._before_step = before_step

    def open_slots(self, capacity, threads, history=0):
        return LatentSlots(self, capacity=capacity, threads=threads, history=history)

    def prepare(self, frame):
        if frame.shape != self.state_shape:
            raise ShapeError(f"frame: expected {list(self.state_shape)}, got {list(frame.shape)}")
        return frame.astype(np.float32)

    def example(self):
        return np.ones(self.state_shape, np.float32)

    def trust(self, E_norm):
        return float(1 / (1 + E_norm))

    def E_norm_for(self, quality):
        return 1 / quality - 1

    def encode(self, inputs):
        target = np.stack(inputs)
        z = np.zeros_like(target)
        return Encoded(z, {"target": target}, (z - target) ** 2)

    def advance(self, z, context, step_size):
        self._before_step()
        delta = context["target"] - z
        moved = np.clip(z + step_size[:, None] * delta, self.lo, self.hi)
        return delta, (moved - context["target"]) ** 2

    def energies(self, z, context):
        return (z - context["target"]) ** 2

    def decode(self, z, inputs):
        return [Answer(row.copy()) for row in z]

    def init_state(self, x0, task_ctx=None):
        return IRPState(np.zeros_like(x0), 0, {"target": x0})

    def energy(self, state):
        return float(np.mean((state.x - state.meta["target"]) ** 2, dtype=np.float64))

    def step(self, state, noise_schedule):
        moved = state.x + np.float32(self.step_size) * (state.meta["target"] - state.x)
        return IRPState(moved, state.step_idx + 1, state.meta)

    def project(self, state):
        return IRPState(np.clip(state.x, self.lo, self.hi), state.step_idx, state.meta)


class DeviceQuadratic(QuadraticPlugin):
    """The same with a step between fixed arrays, for a loop of tests/host_loop.py.

    State space: float32 [n].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target; a quarter of the last one after each step.
    Coherence contribution: the fall of that distance.
    """

    dtype = np.dtype(np.float32)

    @property
    def energy_terms(self):
        return self.state_shape[0]

    def device_program(self):
        return self

    def bind_step(self, tensors):
        at = {name: array_at(view.pointer, view.shape, view.dtype) for name, view in tensors.items()}

        def enqueue(stream):
            at["delta"][:], at["energy"][:] = self.advance(at["z"], {"target": at["target"]}, at["step_size"])

        return enqueue
