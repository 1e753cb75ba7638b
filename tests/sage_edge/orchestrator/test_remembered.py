"""What is remembered of a request, and what is not: memory goes with the answer."""

from __future__ import annotations

import gc
import itertools
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from sage_edge import HRM, Answer, Settings
from sage_edge.errors import FrameTooLargeError, MemoryFullError, UnknownRequestError
from sage_edge.memory import Account
from sage_edge.orchestrator.remembered import Remembered
from tests.fakes import FakeClock
from tests.quadratic import QuadraticPlugin
from tests.tickets import make_ticket

LIMIT = 6400


class Kept:
    """Tickets that are kept, and ended by hand."""

    def __init__(self):
        self.memory = Account("answers", LIMIT)
        self.requests = Remembered(100, self.memory, keep_s=60.0, now_ns=FakeClock().monotonic_ns)
        self.numbers = itertools.count(1)

    def post(self, needed):
        ticket = make_ticket(next(self.numbers))
        room = self.requests.check(ticket.request_id, needed)
        self.requests.keep(ticket, room)
        return ticket

    def end(self, ticket, size):
        ticket.future.set_result(SimpleNamespace(answer=Answer(np.zeros(size, np.uint8))))


@pytest.fixture
def hrm():
    settings = Settings(slots=2, threads=1, telemetry_dir="", board_period_s=0.0)
    with HRM(settings, {"q": QuadraticPlugin()}) as opened:
        opened.start()
        yield opened


def test_an_answer_that_nobody_keeps_is_gone_without_the_garbage_collector(hrm):
    gc.collect()
    gc.disable()
    try:
        ticket = hrm.submit("q", np.ones(6, np.float32))
        answer = weakref.ref(ticket.future.result().answer.array)
        while hrm.status()["q"]["live"]:
            pass
        hrm.submit("q", np.ones(6, np.float32)).future.result()  # the worker holds its last one until now
        del ticket
        assert answer() is None
    finally:
        gc.enable()


def test_a_kept_ticket_keeps_its_answer_and_not_its_input(hrm):
    room = hrm.requests.check("mine", 1000)
    ticket = hrm.submit("q", np.ones(6, np.float32), request_id="mine")
    hrm.requests.keep(ticket, room)
    ticket.future.result()
    while ticket.x0 is not None:
        pass
    assert hrm.requests.find("mine").future.result().answer.array.size == 6
    assert hrm.memory["answers"].used == 24 == room.size
    hrm.requests.drop("mine")
    assert hrm.memory["answers"].used == 0


def test_the_answer_that_came_first_makes_way_for_one_that_needs_its_memory():
    kept = Kept()
    first, second = kept.post(1500), kept.post(1500)
    kept.end(second, 1400)
    kept.end(first, 1300)
    assert kept.memory.used == 2700
    third = kept.post(3500)
    assert kept.memory.used == 1300 + 3500
    with pytest.raises(UnknownRequestError):
        kept.requests.find(second.request_id)
    assert kept.requests.find(first.request_id) is first
    assert kept.requests.find(third.request_id) is third


def test_what_still_runs_makes_way_for_nobody():
    kept = Kept()
    running = [kept.post(1500) for _ in range(3)]
    with pytest.raises(MemoryFullError):
        kept.post(1500)
    assert [kept.requests.find(ticket.request_id) for ticket in running] == running
    kept.end(running[0], 10)
    kept.post(1500)


def test_an_answer_that_could_never_be_kept_is_refused_at_once():
    kept = Kept()
    with pytest.raises(FrameTooLargeError):
        kept.post(LIMIT)
    assert (len(kept.requests), kept.memory.used) == (0, 0)


def test_a_ticket_that_is_dropped_while_it_runs_gives_its_room_back_once():
    kept = Kept()
    ticket = kept.post(1000)
    kept.requests.drop(ticket.request_id)
    kept.end(ticket, 500)
    assert kept.memory.used == 0
