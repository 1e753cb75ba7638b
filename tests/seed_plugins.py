"""Plugins with the protocol's own methods, for tests: each does one thing in its own way."""

from __future__ import annotations

from collections import Counter

import numpy as np

from sage_edge import HaltPolicy, Invariants, IRPPlugin, IRPState


class Halving(IRPPlugin):
    """Halve the distance to a target at each step.

    State space: float64 [n].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target; a quarter of the last one after each step.
    Coherence contribution: the fall of that distance.
    """

    name = "halving"
    invariants = Invariants("vector", "gaussian", "mean-squared-distance", "squared units")
    halting = HaltPolicy(K=2, eps=1e-3, max_steps=20)
    config_keys = ("share",)

    def init_state(self, x0, task_ctx):
        return IRPState(np.zeros(len(x0)), 0, {"target": np.asarray(x0, float)})

    def energy(self, state):
        return float(np.mean((state.x - state.meta["target"]) ** 2))

    def step(self, state, noise_schedule):
        moved = state.x + self.config.get("share", 0.5) * (state.meta["target"] - state.x)
        return IRPState(moved, state.step_idx + 1, state.meta)

    def example(self):
        return np.ones(4)


class Counting(Halving):
    """The same, with every method that may be overridden, counted.

    State space: float64 [n].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target; a quarter of the last one after each step.
    Coherence contribution: the fall of that distance.
    """

    name = "counting"

    def __init__(self, config=None):
        super().__init__(config)
        self.calls = Counter()

    def init_state(self, x0, task_ctx):
        self.calls["init_state"] += 1
        return super().init_state(x0, task_ctx)

    def energy(self, state):
        self.calls["energy"] += 1
        return super().energy(state)

    def step(self, state, noise_schedule):
        self.calls["step"] += 1
        return super().step(state, noise_schedule)

    def project(self, state):
        self.calls["project"] += 1
        return IRPState(np.clip(state.x, -3.0, 3.0), state.step_idx, state.meta)

    def feasible(self, state):
        self.calls["feasible"] += 1
        return bool((np.abs(state.x) <= 3.0).all())

    def gap(self, state):
        self.calls["gap"] += 1
        return 0.0

    def halt(self, history, state=None):
        self.calls["halt"] += 1
        return "confidence" if len(history) > 4 else None

    def perturb(self, state, sigma, rng):
        self.calls["perturb"] += 1
        return super().perturb(state, sigma, rng)

    def prepare(self, x):
        self.calls["prepare"] += 1
        return np.asarray(x, float).ravel()

    def decode(self, state):
        self.calls["decode"] += 1
        return super().decode(state)

    def trust(self, E_norm):
        self.calls["trust"] += 1
        return 1 / (1 + E_norm)

    def emit_telemetry(self, state, history):
        self.calls["emit_telemetry"] += 1
        return {**super().emit_telemetry(state, history), "distance": float(np.sqrt(history[-1]))}
