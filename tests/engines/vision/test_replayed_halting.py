from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from engines.vision.halting import answer_steps, compute_saved, halting_steps

pytestmark = pytest.mark.training

energies = arrays(
    np.float64, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=9), elements=st.floats(0, 1)
)


def halts_at(row, K, eps):
    """The rule as it is told: after each step, look back over the last K + 1 energies."""
    for step in range(1, len(row)):
        seen = row[: step + 1]
        if len(seen) > K and max(seen[-K - 1 :]) - min(seen[-K - 1 :]) < eps:
            return step
    return len(row) - 1


@given(energies, st.integers(1, 4), st.floats(1e-6, 1))
def test_a_replayed_halt_is_where_looking_back_after_each_step_would_stop(values, K, eps):
    K = min(K, values.shape[1] - 1)
    assert halting_steps(values, K, eps).tolist() == [halts_at(row.tolist(), K, eps) for row in values]


@given(energies)
def test_the_answer_is_the_first_lowest_energy_up_to_the_halt(values):
    halted = np.arange(len(values)) % values.shape[1]
    expected = [
        row[: stop + 1].tolist().index(row[: stop + 1].min())
        for row, stop in zip(values, halted, strict=True)
    ]
    assert answer_steps(values, halted).tolist() == expected


def test_compute_counts_the_encoder_and_the_decoder_on_both_sides():
    assert compute_saved({"encoder": 2, "step": 1, "decoder": 1}, mean_steps=2.0, max_steps=8) == 11 / 5
