from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sage_edge.telemetry import Event, Events


@given(st.lists(st.integers(0, 6), max_size=6), st.integers(1, 4))
def test_events_come_in_order_and_those_past_the_bound_are_counted(bursts, capacity):
    events, number = Events(capacity), 0
    for burst in bursts:
        put = [Event("ledger", {"n": number + n}, 0) for n in range(burst)]
        number += burst
        for event in put:
            events.put(event)
        assert events.take() == (put[:capacity], max(0, burst - capacity))
    assert events.take() == ([], 0)
