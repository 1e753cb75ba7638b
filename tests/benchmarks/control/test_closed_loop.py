"""The closed loops of the benchmark, shortened: limits hold whatever ends a solve."""

from __future__ import annotations

import pytest

from benchmarks.control.closed_loop import LOOP_S, POLICIES, controller, saved, simulate
from benchmarks.control.plants import cart_pole, quadrotor


@pytest.mark.parametrize("make", [quadrotor, cart_pole], ids=["quadrotor", "cart-pole"])
@pytest.mark.parametrize("name", ["feasible", "slope<eps", "confidence", "max_steps 4", "timeout", "budget"])
def test_no_limit_is_broken_in_closed_loop_under_any_halt_reason(make, name):
    plant = make()
    policy, deadline_ms = POLICIES[name]
    if name in ("timeout", "budget"):
        # Time for some steps on a busy machine too, and so many steps that nothing else ends a run.
        policy = policy.replace(max_steps=100_000, budget_us=10 * policy.budget_us)
        deadline_ms = deadline_ms and 10 * deadline_ms
    row = simulate(plant, controller(plant), policy, deadline_ms, seconds=1.0)
    assert row["worst_violation"] <= 1e-3
    assert row["at_limit"] > 0  # otherwise the limits would not be tested
    assert name.partition(" ")[0] in row["reasons"]


def test_a_machine_too_busy_for_any_iteration_is_told_and_no_error():
    row = simulate(cart_pole(), controller(cart_pole()), POLICIES["timeout"][0], 1e-6, seconds=0.1)
    assert (row["iterations"], row["reasons"]) == (0.0, {"timeout": len(range(int(0.1 / LOOP_S)))})
    assert (saved(8.0, row["iterations"]), saved(8.0, 2.0)) == ("all", "4.00x")
