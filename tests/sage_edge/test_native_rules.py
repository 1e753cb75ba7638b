"""The halting rule and the trust statistics against plain twins that rescan the history."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.errors import ConfigError, ShapeError
from sage_edge.native import HaltPolicy, halt_reason, trust_statistics
from tests.oracles import halting, trust

energies = st.one_of(
    st.floats(-20, 20),
    st.integers(-3, 3).map(float),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e300]),
)
policies = st.builds(
    HaltPolicy,
    eps=st.sampled_from([0.0, 1e-4, 0.5, 2.0]),
    K=st.integers(1, 15),
    max_steps=st.integers(0, 20),
    E_scale=st.sampled_from([0.1, 1.0, 10.0]),
    divergence_factor=st.sampled_from([1.0, 2.0, 10.0, math.inf]),
    target_E_norm=st.sampled_from([-math.inf, -1.0, 0.5]),
    gap_tolerance=st.sampled_from([0.0, 0.1]),
    halt_when_feasible=st.booleans(),
    budget_us=st.sampled_from([0.0, 100.0, math.inf]),
    deadline_ns=st.sampled_from([0, 1000, 2**63 - 1]),
)


@given(
    history=st.lists(energies, min_size=1, max_size=25),
    policy=policies,
    feasible=st.booleans(),
    gap=st.sampled_from([0.0, 0.1, 0.2, math.nan]),
    spent_us=st.sampled_from([0.0, 90.0, 100.0]),
    charge_us=st.sampled_from([0.0, 10.0, 11.0]),
    now_ns=st.sampled_from([0, 900, 1000]),
    margin_ns=st.sampled_from([0, 100]),
)
def test_the_rule_agrees_with_its_twin(history, policy, **rest):
    assert halt_reason(history, policy, **rest) == halting.halt_reason(history, policy, **rest)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_trust_without_rescans_agrees_with_a_rescan(history):
    got, expected = trust_statistics(history), trust.trust_statistics(history)
    assert got.monotonicity_ratio == expected[0]
    # Rounding of up to 60 squares of changes up to 2e6.
    assert got.dE_variance == pytest.approx(expected[1], rel=1e-9, abs=1e-6)
    assert got.convergence_rate == pytest.approx(expected[2], nan_ok=True)
    assert got.n == expected[3]


def test_endpoints_that_agree_are_not_convergence():
    assert halt_reason([1.0, 5.0, -3.0, 1.0], HaltPolicy(K=3, eps=0.1)) is None


def test_a_converged_run_halts_with_its_wire_name():
    assert halt_reason([1.0, 0.5, 0.5, 0.5, 0.5], HaltPolicy()) == "slope<eps"


def test_fifty_steps_leave_fifty_one_states():
    falling = [100.0 - k for k in range(51)]
    assert halt_reason(falling[:50], HaltPolicy()) is None
    assert halt_reason(falling, HaltPolicy()) == "max_steps"


@pytest.mark.parametrize("rule", [trust_statistics, lambda history: halt_reason(history, HaltPolicy())])
def test_a_history_without_states_is_refused(rule):
    with pytest.raises(ShapeError, match="at least one state, got none"):
        rule([])


def test_a_negative_margin_is_refused():
    with pytest.raises(ConfigError, match="margin_ns: expected a number >= 0, got -1"):
        halt_reason([1.0], HaltPolicy(), margin_ns=-1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("eps", -1e-9),
        ("eps", math.nan),
        ("K", 0),
        ("K", 16),
        ("max_steps", -1),
        ("E_scale", 0.0),
        ("E_scale", math.inf),
        ("divergence_factor", 0.5),
        ("target_E_norm", math.nan),
        ("gap_tolerance", -1.0),
        ("budget_us", math.nan),
        ("deadline_ns", -1),
    ],
)
def test_a_policy_out_of_range_names_its_field(field, value):
    with pytest.raises(ConfigError, match=rf"halt policy, {field}: expected .*, got"):
        HaltPolicy(**{field: value})
    with pytest.raises(ConfigError, match=field):
        HaltPolicy().replace(**{field: value})


def test_a_policy_is_a_value():
    policy = HaltPolicy(eps=0.25, K=2)
    assert policy.replace(K=3) == HaltPolicy(eps=0.25)
    assert policy != HaltPolicy()
    assert policy != "a policy"
    assert hash(policy) == hash(HaltPolicy(eps=0.25, K=2))
    assert repr(policy).startswith("HaltPolicy(eps=0.25, K=2, max_steps=50, ")
    with pytest.raises(AttributeError):
        policy.eps = 1.0
