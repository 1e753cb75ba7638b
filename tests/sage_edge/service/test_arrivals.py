"""Slow bodies: for how long each is waited for, and which of them makes way."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import httpx
import pytest

from sage_edge import Settings
from sage_edge.errors import BodyTimeoutError
from sage_edge.keys import add_key
from sage_edge.service import arrivals
from sage_edge.service.arrivals import PATIENCE_S, Arrivals
from tests.fakes import FakeClock
from tests.quadratic import QuadraticPlugin
from tests.sage_edge.service.conftest import Service
from tests.wire import connect, post_vector, read_to_end

PLACES = 4


class Bodies:
    """Bodies that never come, by name."""

    def __init__(self):
        self.clock = FakeClock()
        self.arrivals = Arrivals(self.clock)
        self.tasks = {}

    async def begin(self, name, caller):
        body = asyncio.get_running_loop().create_future()
        self.tasks[name] = asyncio.ensure_future(self.arrivals.take(body, caller, 1000.0))
        await asyncio.sleep(0)

    async def displaced(self):
        await asyncio.sleep(0)
        done, _ = await asyncio.wait(self.tasks.values(), timeout=0.01)
        names = {name for name, task in self.tasks.items() if task in done}
        for name in names:
            assert isinstance(self.tasks.pop(name).exception(), BodyTimeoutError)
        return names


def test_the_oldest_body_of_whoever_has_most_makes_way_at_once():
    async def scene():
        bodies = Bodies()
        for name, caller in (("b1", "bob"), ("a1", "alice"), ("a2", "alice"), ("a3", "alice")):
            await bodies.begin(name, caller)
        assert bodies.arrivals.make_way("bob")
        assert await bodies.displaced() == {"a1"}
        assert not bodies.arrivals.make_way("bob")  # who has one now, as alice would then
        bodies.clock.advance(PATIENCE_S)
        assert bodies.arrivals.make_way("bob")
        assert await bodies.displaced() == {"a2"}

    asyncio.run(scene())


def test_a_caller_does_not_displace_its_own_bodies_before_they_had_their_time():
    async def scene():
        bodies = Bodies()
        for name in ("a1", "a2"):
            await bodies.begin(name, "alice")
            bodies.clock.advance(PATIENCE_S / 2)
        assert bodies.arrivals.make_way("alice")
        assert await bodies.displaced() == {"a1"}
        assert not bodies.arrivals.make_way("alice")

    asyncio.run(scene())


def test_where_nothing_is_on_its_way_nothing_makes_way():
    assert not Arrivals(FakeClock()).make_way("alice")


@pytest.fixture
def keyed(tmp_path):
    """A service with few places, and a key for each of two callers."""
    keys = {name: add_key(tmp_path / "keys", name) for name in ("alice", "bob")}
    settings = Settings(
        slots=2, threads=1, queue_size=PLACES, telemetry_dir="", api_keys_file=str(tmp_path / "keys")
    )
    with Service({"quadratic": QuadraticPlugin()}, settings) as service:
        yield service, keys


def begin_body(service, key):
    connection = connect(service)
    connection.sendall(
        b"POST /v1/refine/quadratic HTTP/1.1\r\nHost: x\r\nX-API-Key: %b\r\nContent-Length: 24\r\n\r\nhalf"
        % key.encode()
    )
    return connection


def status(service, key):
    return post_vector(service.client, headers={"X-API-Key": key}).status_code


def test_one_key_cannot_keep_the_other_out_by_slow_bodies(keyed, monkeypatch):
    monkeypatch.setattr(arrivals, "PATIENCE_S", 1000.0)
    service, keys = keyed
    context = service.app.state.context
    with ExitStack() as stack:
        slow = [stack.enter_context(begin_body(service, keys["alice"])) for _ in range(PLACES)]
        service.wait_for(lambda: len(context.arrivals._coming) == PLACES)
        assert status(service, keys["alice"]) == httpx.codes.TOO_MANY_REQUESTS
        assert [status(service, keys["bob"]) for _ in range(5)] == [httpx.codes.OK] * 5
        assert read_to_end(slow[0]).startswith(b"HTTP/1.1 408")
        assert len(context.arrivals._coming) == PLACES - 1  # nobody else had to go


def test_slow_bodies_make_way_for_a_quick_one_of_the_same_caller_after_a_while(keyed, monkeypatch):
    monkeypatch.setattr(arrivals, "PATIENCE_S", 0.0)
    service, keys = keyed
    with ExitStack() as stack:
        for _ in range(2 * PLACES):
            stack.enter_context(begin_body(service, keys["alice"]))
        service.wait_for(lambda: len(service.app.state.context.arrivals._coming) == PLACES)
        assert [status(service, keys["alice"]) for _ in range(5)] == [httpx.codes.OK] * 5
