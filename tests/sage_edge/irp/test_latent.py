"""What a latent plugin overrides, and how it is run then."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sage_edge import HaltPolicy, IRPState, native
from sage_edge.errors import PluginError
from sage_edge.irp.latent import Start, begin
from sage_edge.runtime import CpuRefiner, Job, open_slots
from sage_edge.runtime.latent_slots import LatentSlots
from tests.quadratic import QuadraticPlugin


class Masking(QuadraticPlugin):
    """A noise model of its own, which looks at the state's context and input.

    State space: float32 [n].
    Noise model: the first number is that of the target, times the input's.
    Energy: mean squared distance to the target.
    Coherence contribution: the fall of that distance.
    """

    def perturb(self, state, sigma, rng):
        x = state.x.copy()
        x[0] = 10 * state.meta["target"][0] + state.meta["x0"][1] + rng.integers(1, 3)
        return IRPState(x, state.step_idx, state.meta)


def test_a_noise_model_of_its_own_is_obeyed_where_steps_are_shared():
    plugin = Masking()
    states = open_slots(plugin, capacity=2, threads=1, history=0)
    assert isinstance(states, LatentSlots)
    ring = native.Ring(64)
    reader = native.RingReader(ring)
    refiner = CpuRefiner(states, plugin.example, ring=ring, plugin_number=0, now_ns=time.monotonic_ns)
    plain, noisy = plugin.example(), np.arange(6, dtype=np.float32)
    refiner.admit([Job(0, plain, HaltPolicy()), Job(1, noisy, HaltPolicy(), seed=5)])
    records = reader.drain(64)
    first = {int(record["run_id"]): float(record["E"]) for record in records}
    drawn = np.random.default_rng(5).integers(1, 3)
    expected = [(1 + drawn) ** 2, 1, 4, 9, 16, 25]  # 10 * 0 + 1 + drawn, where the target has 0
    assert first[0] == 1.0
    assert first[1] == pytest.approx(np.mean(expected))


def test_a_noise_model_that_returns_no_state_fails_by_its_name():
    class Broken(Masking):
        def perturb(self, state, sigma, rng):
            return state.x

    with pytest.raises(PluginError, match="perturb: expected an IRPState"):
        begin(Broken(), [Start(np.ones(6, np.float32), seed=1)])
