"""The closed loops of the benchmark, shortened: limits hold whatever ends a solve."""

from __future__ import annotations

import pytest

from benchmarks.control.closed_loop import POLICIES, controller, simulate
from benchmarks.control.plants import cart_pole, quadrotor


@pytest.mark.parametrize("make", [quadrotor, cart_pole], ids=["quadrotor", "cart-pole"])
@pytest.mark.parametrize("name", ["feasible", "slope<eps", "confidence", "max_steps 4", "timeout", "budget"])
def test_no_limit_is_broken_in_closed_loop_under_any_halt_reason(make, name):
    plant = make()
    row = simulate(plant, controller(plant), *POLICIES[name], seconds=1.0)
    assert row["worst_violation"] <= 1e-3
    assert row["at_limit"] > 0  # otherwise the limits would not be tested
    assert name.partition(" ")[0] in row["reasons"]
