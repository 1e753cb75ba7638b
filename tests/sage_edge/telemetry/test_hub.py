from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.telemetry import Hub


def records(*seqs, request_id="a"):
    return [{"kind": "step", "seq": seq, "request_id": request_id} for seq in seqs]


@given(
    seqs=st.sets(st.integers(0, 60), max_size=40).map(sorted),
    capacity=st.integers(1, 50),
    after=st.integers(-1, 60),
    limit=st.integers(1, 50),
)
def test_a_hub_gives_the_newest_records_in_order_and_counts_the_others(seqs, capacity, after, limit):
    hub = Hub(capacity)
    for seq in seqs:
        hub.publish(records(seq))
    if not hub.knows(after):
        assert after not in range(max(seqs, default=-1) + 1)
        after = -1
    expected = [seq for seq in seqs[-capacity:] if seq > after][:limit]
    found, missed = hub.after(after, limit)
    assert [record["seq"] for record in found] == expected
    last = expected[-1] if expected else after
    assert missed == sum(seq not in expected for seq in range(after + 1, last + 1))


@given(st.lists(st.integers(0, 5), max_size=8), st.integers(1, 4))
def test_resuming_after_the_last_record_visits_each_once(gaps, limit):
    seqs = [sum(gaps[: n + 1]) + n for n in range(len(gaps))]
    hub = Hub(100)
    for seq in seqs:
        hub.publish(records(seq))
    seen, after = [], -1
    while page := hub.after(after, limit)[0]:
        seen += [record["seq"] for record in page]
        after = seen[-1]
    assert seen == seqs


def test_a_subscriber_gets_what_comes_after_it_joined():
    hub, got = Hub(10), []
    hub.publish(records(0))
    hub.subscribe(got.append)
    hub.publish(records(1, 2))
    hub.publish(records(3))
    assert got == [records(1, 2), records(3)]


def test_a_subscriber_to_a_request_gets_nothing_of_the_others():
    hub, got = Hub(10), []
    hub.subscribe(got.append, request_id="b")
    hub.publish(records(0, 1, request_id="a"))
    hub.publish(records(2, request_id="a") + records(3, request_id="b"))
    assert got == [records(3, request_id="b")]


def test_the_same_callback_can_subscribe_twice_and_leave_once():
    hub, got = Hub(10), []
    callback = got.append
    leave = hub.subscribe(callback)
    hub.subscribe(callback)
    leave()
    leave()
    hub.publish(records(0))
    assert got == [records(0)]


def test_a_subscriber_to_a_request_gets_its_steps_and_no_events():
    hub, got = Hub(10), []
    hub.subscribe(got.append, "a")
    hub.publish([{"kind": "trust", "seq": 0, "request_id": "a"}, {"kind": "ledger", "seq": 1}, *records(2)])
    assert got == [records(2)]


def test_a_subscriber_that_fails_is_dropped_and_harms_nobody(caplog):
    hub, got = Hub(10), []

    def fail(_):
        raise RuntimeError("the event loop is closed")

    hub.subscribe(fail)
    hub.subscribe(got.append)
    hub.publish(records(0))
    hub.publish(records(1))
    assert got == [records(0), records(1)]
    assert caplog.text.count("telemetry_subscriber_failed") == 1


def test_closing_tells_each_subscriber_once_that_it_is_over():
    hub, got = Hub(10), []
    hub.subscribe(got.append)
    hub.close()
    hub.close()
    hub.publish(records(0))
    assert got == [None]


def test_who_subscribes_to_a_closed_hub_is_told_at_once():
    hub, got = Hub(10), []
    hub.close()
    hub.subscribe(got.append)
    assert got == [None]


@pytest.mark.parametrize("before", [range(5, 5), range(5, 40)], ids=["begun", "continued"])
@pytest.mark.parametrize("stranger", [-1, 4, 43, 1 << 51])
def test_a_number_of_another_chain_hides_nothing(before, stranger):
    hub = Hub(100, before)
    hub.publish(records(40, 41, 42))
    found, missed = hub.after(stranger, 100)
    assert [record["seq"] for record in found] == [40, 41, 42]
    assert missed == 35


def test_a_number_that_an_earlier_life_gave_is_known_as_long_as_its_chain_goes_on():
    hub = Hub(100, range(5, 40))
    assert [hub.knows(seq) for seq in (-1, 4, 5, 39, 40)] == [False, False, True, True, False]
    hub.publish(records(41))
    assert [hub.knows(seq) for seq in (40, 41, 42)] == [True, True, False]
