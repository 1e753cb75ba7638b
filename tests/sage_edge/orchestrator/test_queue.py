"""The waiting room."""

from __future__ import annotations

import queue
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.errors import CapacityError, ClosingError
from sage_edge.orchestrator.queue import WaitingRoom
from tests.tickets import make_ticket


def ticket(number, deadline_ns=10**9, **options):
    return make_ticket(number, deadline_ns=deadline_ns, **options)


def take(room, count, now_ns=0):
    ready, dead = room.take(count, is_dead=lambda t: t.deadline_ns < now_ns, wait=False)
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
    assert room.take(1, is_dead=lambda _: False, wait=True) is None


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


def test_a_full_room_makes_place_for_higher_priority():
    room = WaitingRoom(2)
    room.put(ticket(1, priority=-1))
    room.put(ticket(2, priority=-1))
    assert room.put(ticket(3, priority=5)).run_id == 2
    assert room.put(ticket(4)).run_id == 1
    with pytest.raises(CapacityError):
        room.put(ticket(5))
    assert take(room, 8) == ([3, 4], [])


def test_who_waits_for_the_dead_is_told_of_each_at_its_time_and_of_the_end():
    room, now_s, dead = WaitingRoom(8), [0.0], queue.Queue()

    def is_dead(one):
        return one.due_ms / 1e3 < now_s[0]

    def keep_the_door():
        while found := room.take_dead(is_dead, lambda one: one.due_ms / 1e3 - now_s[0]):
            dead.put([one.run_id for one in found])
        dead.put(None)

    keeper = threading.Thread(target=keep_the_door)
    keeper.start()
    room.put(ticket(1, due_ms=1e6))
    now_s[0] = 1.0
    room.put(ticket(2, due_ms=900.0))
    assert dead.get(timeout=10) == [2]
    given_up = ticket(3, due_ms=1e6)
    given_up.cancel()
    room.put(given_up)
    assert dead.get(timeout=10) == [3]
    assert take(room, 8) == ([1], [])
    room.close()
    assert dead.get(timeout=10) is None
    keeper.join(10)


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
