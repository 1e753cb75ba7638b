"""The problems that found a fault before, and some that are new: all end at their optimum."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.control import optimum
from sage_edge.plugins.control import ControlPlugin

PLUGIN = ControlPlugin()


@pytest.mark.parametrize("seed", [3487, 6087])
def test_an_mpc_is_answered_by_the_inputs_of_least_gap_and_not_by_what_the_solver_believes(seed):
    case = optimum.some_mpc(
        np.random.default_rng(seed), optimum.RADII[seed // 4 % 5], optimum.HORIZONS[seed // 20 % 3]
    )
    assert optimum.judge(PLUGIN, case) == "right"


@pytest.mark.parametrize("kind", optimum.KINDS)
def test_a_qp_is_answered_by_its_optimum(kind):
    outcomes = [
        optimum.judge(PLUGIN, optimum.some_qp(np.random.default_rng(seed), optimum.KINDS[kind]))
        for seed in range(20)
    ]
    assert outcomes == ["right"] * 20


def test_what_is_off_by_more_than_a_thousandth_is_wrong():
    case = optimum.some_qp(np.random.default_rng(1), 1.0)
    assert case.optimum is not None
    for share, outcome in ((0.9, "right"), (1.1, "wrong")):
        off = share * optimum.TOLERANCE * abs(case.optimum)
        moved = case._replace(cost=lambda _, off=off: case.optimum + off)
        assert optimum.judge(PLUGIN, moved) == outcome
