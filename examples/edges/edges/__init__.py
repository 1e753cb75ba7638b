"""A network that is run once, as a plugin: its answer is there with the first state."""

from pathlib import Path

import numpy as np
from PIL import Image

from sage_edge import Answer, HaltPolicy, Invariants, IRPPlugin, IRPState, Recipe
from sage_edge.errors import ShapeError

NET = Path(__file__).with_name("edges.onnx")
SIZE = 128


class Edges(IRPPlugin):
    """Mark the edges of a picture with one pass of a network; there is nothing to refine.

    State space: float32 [2, SIZE, SIZE], scores of "plain" and "edge".
    Noise model: none: branches of a request would all be alike.
    Energy: mean uncertainty of a pixel, 1 minus its larger softmax probability.
    Coherence contribution: none, since no step follows.
    """

    invariants = Invariants("class-scores", "none", "mean-uncertainty", "probability")
    state_kind = "latent"
    halting = HaltPolicy(halt_when_feasible=True)  # the first state is the answer
    noise_sigma = 0.0

    def recipes(self, precision):
        return {"net": Recipe.of(NET)}

    def load(self, engines):
        self.net = engines["net"]
        self.net.require(["frame"], ["scores"])
        self.backend = self.net.backend

    def prepare(self, x):
        if x.dtype != np.uint8 or x.ndim != 3 or x.shape[2] != 3:
            raise ShapeError(f"frame: expected uint8 [H, W, 3], got {x.dtype} {list(x.shape)}")
        picture = Image.fromarray(x).convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        return np.asarray(picture, np.float32)[None] / 255

    def init_state(self, x0, task_ctx):
        return IRPState(self.net.run({"frame": x0[None]})["scores"][0])

    def energy(self, state):
        larger = 1 / (1 + np.exp(-np.abs(state.x[1] - state.x[0])))
        return float(1 - larger.mean())

    def step(self, state, noise_schedule):
        return IRPState(state.x, state.step_idx + 1, state.meta)

    def decode(self, state):
        mask = state.x.argmax(axis=0).astype(np.uint8)
        return Answer(mask, classes=("plain", "edge"), palette=((0, 0, 0), (255, 255, 255)))
