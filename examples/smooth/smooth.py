"""A plugin of three methods that takes the noise out of a picture, step by step."""

import numpy as np

from sage_edge import Answer, HaltPolicy, Invariants, IRPPlugin, IRPState


class Smooth(IRPPlugin):
    """Take the noise out of a picture, and keep near to what was seen.

    State space: float32 [H, W], grey levels.
    Noise model: Gaussian noise on the pixels.
    Energy: mean squared difference of neighbours, plus a tenth of that to the picture that was seen.
    Coherence contribution: a fall of this energy, over E_scale, times the plugin's trust weight.
    """

    invariants = Invariants("grey-picture", "gaussian", "roughness", "squared grey levels")
    state_kind = "pixels"
    profiles = ("edge", "workstation")  # a small filter: pixels are no reason to refuse it on a board
    halting = HaltPolicy(E_scale=100.0, eps=1e-2, max_steps=30)
    config_keys = ("pull",)

    def init_state(self, x0, task_ctx):
        seen = np.asarray(x0, np.float32).mean(axis=-1)
        return IRPState(seen, 0, {"seen": seen})

    def energy(self, state):
        x, seen = state.x, state.meta["seen"]
        rough = np.mean(np.diff(x, axis=0) ** 2) + np.mean(np.diff(x, axis=1) ** 2)
        return float(rough + 0.1 * np.mean((x - seen) ** 2))

    def step(self, state, noise_schedule):
        x, seen = state.x, state.meta["seen"]
        p = np.pad(x, 1, mode="edge")
        mean = (p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]) / 4
        moved = x + 0.5 * (mean - x) + self.config.get("pull", 0.02) * (seen - x)
        return IRPState(moved, state.step_idx + 1, state.meta)

    def decode(self, state):
        return Answer(np.clip(np.rint(state.x), 0, 255).astype(np.uint8))
