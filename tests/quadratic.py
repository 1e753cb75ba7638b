"""A plugin with nothing learned: it moves towards a target. Exact, fast, and predictable by hand."""

from __future__ import annotations

import numpy as np

from sage_edge import Encoded, HaltPolicy, Invariants, LatentPlugin
from sage_edge.errors import ShapeError
from sage_edge.irp.engine import TensorSpec
from tests.host_loop import array_at


class QuadraticPlugin(LatentPlugin):
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
    lo, hi, step_size, noise_sigma = -100.0, 100.0, 0.5, 1.0

    def __init__(self, config=None, size=6, before_step=lambda: None):
        super().__init__(config)
        self.state_shape = (size,)
        self.context_shapes = {"target": (size,)}
        self._before_step = before_step

    def prepare(self, x):
        if x.shape != self.state_shape:
            raise ShapeError(f"frame: expected {list(self.state_shape)}, got {list(x.shape)}")
        return x.astype(np.float32)

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


class DeviceQuadratic(QuadraticPlugin):
    """The same with a step between fixed arrays, for a loop of tests/host_loop.py.

    State space: float32 [n].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target; a quarter of the last one after each step.
    Coherence contribution: the fall of that distance.
    """

    @property
    def step_engine(self):
        return QuadraticStep(self)


class QuadraticStep:
    """The step of a DeviceQuadratic as an engine that can be bound."""

    backend = "numpy"

    def __init__(self, plugin):
        self._plugin = plugin
        row = TensorSpec(plugin.state_shape, np.dtype(np.float32))
        self.ends = {"z": row, "delta": row, "energy": row, "target": row}
        self.ends["step_size"] = TensorSpec((), np.dtype(np.float32))

    def bind(self, tensors):
        at = {name: array_at(view.pointer, view.shape, view.dtype) for name, view in tensors.items()}

        def enqueue(stream):
            advance = self._plugin.advance
            at["delta"][:], at["energy"][:] = advance(at["z"], {"target": at["target"]}, at["step_size"])

        return enqueue


def device_program(plugin):
    """What a loop runs of a DeviceQuadratic."""
    from sage_edge.runtime import DeviceProgram

    return DeviceProgram(plugin, plugin.step_engine)
