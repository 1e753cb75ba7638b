"""The waiting room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.errors import CapacityError, ClosingError
from sage_edge.orchestrator.queue import WaitingRoom
from tests.tickets import make_ticket


def ticket(number, deadline_ns=10**9, **options):
    return make_ticket(number, deadline_ns=deadline_ns, **options)


def take(room, count, now_ns=0):
    ready, dead = room.take(count, earliest_ns=lambda: now_ns, wait=False)
    return [t.run_id for t in ready], [t.run_id for t in dead]


def test_a_full_room_refuses_and_keeps_what_it_has():
    room = WaitingRoom(2)
    room.put(ticket(1))
    room.put(ticket(2))
    with pytest.raises(CapacityError, match="2 requests are waiting"):
        room.put(ticket(3))
    assert take(room, 5) == ([1, 2], [])


def test_a_closed_room_refuses_and_empties():
    room = WaitingRoom(2)
    room.put(ticket(1))
    room.close()
    with pytest.raises(ClosingError):
        room.put(ticket(2))
    assert take(room, 1) == ([1], [])
    assert room.take(1, earliest_ns=lambda: 0, wait=True) is None


def test_higher_priority_goes_first_and_equals_in_order_of_arrival():
    room = WaitingRoom(8)
    for number, priority in enumerate([0, 2, 0, 2, 9, -1]):
        room.put(ticket(number, priority=priority))
    assert [room.before(p) for p in (9, 2, 0, -1)] == [1, 3, 5, 6]
    assert take(room, 8) == ([4, 1, 3, 0, 2, 5], [])


def test_the_latest_frame_of_a_stream_replaces_the_one_that_waits_even_in_a_full_room():
    room = WaitingRoom(2)
    stream = {"stream_id": "cam", "keeps_latest": True}
    assert room.put(ticket(1, **stream)) is None
    room.put(ticket(2))
    assert room.put(ticket(3, **stream)).run_id == 1
    with pytest.raises(CapacityError):
        room.put(ticket(4, stream_id="cam"))
    assert take(room, 8) == ([2, 3], [])


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=30),
    st.integers(0, 30),
    st.integers(0, 20),
)
def test_every_ticket_leaves_once_in_order_and_the_dead_leave_at_once(plan, count, now_ns):
    room = WaitingRoom(64)
    tickets = [ticket(number, deadline) for number, (_, deadline) in enumerate(plan)]
    for entry, (cancelled, _) in zip(tickets, plan, strict=True):
        room.put(entry)
        if cancelled:
            entry.cancel()
    expected_dead = [t.run_id for t in tickets if t.is_cancelled() or t.deadline_ns < now_ns]
    alive = [t.run_id for t in tickets if t.run_id not in expected_dead]
    assert take(room, count, now_ns) == (alive[:count], expected_dead)
    assert take(room, 64, now_ns) == (alive[count:], [])
    assert len(room) == 0
