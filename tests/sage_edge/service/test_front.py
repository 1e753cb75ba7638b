"""The front as strangers meet it: raw bytes on a real socket, before an application of four paths."""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from sage_edge import Settings
from sage_edge.service import front
from tests.wire import read_to_end

GET = b"GET /path HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /path HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
MAX_BODY_BYTES = 16 << 20


class Server:
    """uvicorn behind the front, and what reached the application."""

    def __init__(self, **settings):
        self.served, self.replied = [], []
        self.held = threading.Semaphore(0)
        self._may_answer = threading.Event()
        self._may_answer.set()
        app = Starlette(
            routes=[
                Route("/path", self._path, methods=["GET", "POST"]),
                Route("/body", self._body, methods=["POST"]),
                Route("/stream", self._stream, methods=["GET"]),
                Route("/held", self._held, methods=["GET"]),
            ]
        )
        chosen = Settings(**{"max_body_bytes": MAX_BODY_BYTES, **settings})
        self._server = uvicorn.Server(front.configure(app, chosen, self.replied.append))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()

    def close(self):
        self._may_answer.set()
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()

    async def _path(self, request: Request):
        self.served.append(request.url.path)
        return PlainTextResponse("ok")

    async def _body(self, request: Request):
        body = await request.body()
        self.served.append(dict(request.headers))
        return PlainTextResponse(str(len(body)))

    async def _stream(self, request: Request):
        async def words():
            yield b"one "
            yield b"two"

        return StreamingResponse(words())

    def _held(self, request: Request):  # on a thread, since it waits
        self.held.release()
        self._may_answer.wait(30)
        return PlainTextResponse("held")

    @contextmanager
    def holding(self):
        self._may_answer.clear()
        try:
            yield
        finally:
            self._may_answer.set()

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def answer(self, request):
        """All that comes for some bytes until the server closes; fails where it does not."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_to_end(connection)


def status_of(reply):
    return int(reply.split(b" ", 2)[1])


def is_closed(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.fixture(scope="module")
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture
def own_server():
    """A server for a test that sets the bounds itself, before it asks for one."""
    opened = []

    def start(**settings):
        opened.append(Server(**settings))
        return opened[-1]

    yield start
    for running in opened:
        running.close()


H = b"Host: x\r\n"


@pytest.mark.parametrize(
    ("status", "request_bytes"),
    [
        (400, b"GET /path HTTP/1.1\r\n\r\n"),
        (400, b"GET /path HTTP/1.1\r\n" + H + H + b"\r\n"),
        (400, b"GET /path HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, b"POST /body HTTP/1.1\r\n" + H + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"),
        (
            400,
            b"POST /body HTTP/1.1\r\n"
            + H
            + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (400, b"POST /body HTTP/1.1\r\n" + H + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        (400, b"POST /body HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        (400, b"POST /body HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, b"POST /body HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        (400, b"GET /path HTTP/1.1\r\n" + H + b"X: a\r\n b\r\n\r\n"),
        (400, b"GET /path HTTP/1.1\nHost: x\n\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256))),
        (414, b"GET /path?" + b"a" * (1 << 20)),
        (414, b"GET /path?" + b"a=1&" * 100 + b" HTTP/1.1\r\n" + H + b"\r\n"),
        (431, b"GET /path HTTP/1.1\r\n" + H + b"X: " + b"a" * (1 << 20)),
        (431, b"GET /path HTTP/1.1\r\n" + H + b"X: a\r\n" * 101 + b"\r\n"),
        (
            431,
            b"POST /body HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * (1 << 20),
        ),
        (501, b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + H + b"\r\n"),
        (505, b"GET /path HTTP/2.0\r\n" + H + b"\r\n"),
    ],
)
def test_what_is_no_request_is_refused_once_and_ends_the_connection(server, status, request_bytes):
    served = len(server.served)
    reply = server.answer(request_bytes)
    assert status_of(reply) == status
    assert reply.lower().count(b"content-length:") == 1
    assert b'"error"' in reply
    assert server.served[served:] == []
    assert server.replied[-1] == status


@pytest.mark.parametrize("size", [1, 100, 8191, 8192, 8193, 40_000, 300_000])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_pipelined_requests_are_answered_in_order_wherever_the_reads_fall(server, size, framing):
    body = b"a" * size
    if framing == "length":
        post = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (size, body)
    else:
        post = (
            b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
            % (size, body)
        )
    reply = server.answer(GET + post + GET + post + LAST)
    bodies = [part.partition(b"\r\n\r\n")[2] for part in reply.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [b"ok", b"%d" % size, b"ok", b"%d" % size, b"ok"]


def test_a_thousand_pipelined_requests_are_all_answered_and_parsed_as_they_are(server):
    served = len(server.served)
    reply = server.answer(GET * 999 + LAST)
    assert reply.count(b"HTTP/1.1 200 OK") == 1000
    assert len(server.served) - served == 1000


def test_requests_behind_one_that_is_served_wait_outside(server):
    with server.connect() as connection, server.holding():
        connection.settimeout(2)
        connection.sendall(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        sent = 0
        with pytest.raises(TimeoutError):  # what the two sockets hold, and then no more
            while sent < 64 << 20:
                sent += connection.send(GET * 2000)
        assert sent < 32 << 20


def test_a_refused_request_is_answered_after_those_before_it(server):
    with server.connect() as connection, server.holding():
        connection.sendall(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\nGET /no-host HTTP/1.1\r\n\r\n")
        assert server.answer(LAST).endswith(b"ok")  # the first is still held
        server._may_answer.set()
        reply = read_to_end(connection)
    assert [int(part[:3]) for part in reply.split(b"HTTP/1.1 ")[1:]] == [200, 400]
    assert b"held" in reply


def test_a_million_chunks_of_a_byte_arrive_whole(server):
    count = 200_000
    head = b"POST /body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert server.answer(head + b"1\r\nA\r\n" * count + b"0\r\n\r\n").endswith(b"\r\n\r\n%d" % count)


def test_headers_behind_a_body_count_for_nothing(server):
    head = b"POST /body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert status_of(server.answer(head + b"1\r\nA\r\n0\r\nX-API-Key: mine\r\n\r\n")) == 200
    assert "x-api-key" not in server.served[-1]


def test_an_offer_to_upgrade_is_not_taken_and_costs_no_request(server):
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    post = b"POST /body HTTP/1.1\r\nHost: x\r\n" + offer + b"Content-Length: 5\r\n\r\nhello"
    get = b"GET /path HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n"
    reply = server.answer(post + get + LAST)
    bodies = [part.partition(b"\r\n\r\n")[2] for part in reply.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [b"5", b"ok", b"ok"]
    assert server.answer(b"GET /path HTTP/1.0\r\n" + offer + b"\r\n").endswith(b"ok")


def test_a_reply_without_a_length_has_chunks_for_http_1_1_alone(server):
    old = server.answer(b"GET /stream HTTP/1.0\r\n\r\n")
    new = server.answer(b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"transfer-encoding" not in old.lower()
    assert old.endswith(b"\r\n\r\none two")
    assert b"transfer-encoding: chunked" in new.lower()


@pytest.mark.parametrize("size", [1 << 20, MAX_BODY_BYTES - 1])
def test_a_client_that_closes_reads_the_refusal_of_a_body_that_nobody_read(server, size):
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/nowhere", b"\1" * size)
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request, timeout=30)  # noqa: S310
    with refusal.value as reply:
        assert (reply.code, reply.headers["Connection"]) == (404, "close")


def test_a_connection_goes_on_after_the_refusal_of_a_body_that_has_come(server):
    with server.connect() as connection:
        for path, status in ((b"/nowhere", 404), (b"/body", 200)):
            connection.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nsmall")
            reply = http.client.HTTPResponse(connection)
            reply.begin()
            reply.read()
            assert reply.status == status


def test_what_is_thrown_away_for_a_refused_caller_is_bounded_in_bytes(server):
    with server.connect() as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        sent = 0
        with pytest.raises(ConnectionError):
            while sent < 1 << 30:
                sent += connection.send(bytes(1 << 20))
    assert sent < MAX_BODY_BYTES + (64 << 20)  # what the sockets hold in between


def test_what_is_thrown_away_for_a_refused_caller_is_bounded_in_seconds(own_server):
    server = own_server(body_timeout_s=0.2)
    with server.connect() as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        assert status_of(read_to_end(connection)) == 404
        with pytest.raises(ConnectionError):  # fails by its timeout where the server goes on reading
            while True:
                connection.sendall(b"x")
                threading.Event().wait(0.05)


def test_a_head_that_does_not_come_to_its_end_is_given_up(own_server, monkeypatch):
    monkeypatch.setattr(front, "HEAD_S", 0.2)
    assert status_of(own_server().answer(b"GET /path HTTP/1.1\r\nHost: x\r\nX-")) == 408


def test_a_head_is_not_waited_for_longer_because_a_byte_comes_now_and_then(own_server, monkeypatch):
    monkeypatch.setattr(front, "HEAD_S", 0.5)
    with own_server().connect() as connection:
        connection.sendall(b"GET /path HTTP/1.1\r\nHost: x\r\nX: ")
        connection.settimeout(0.05)
        for _ in range(600):
            connection.sendall(b"a")
            try:
                reply = connection.recv(1 << 16)
            except TimeoutError:
                continue
            break
    assert status_of(reply) == 408


def test_empty_lines_do_not_keep_a_connection_open(own_server, monkeypatch):
    monkeypatch.setattr(front, "HEAD_S", 0.2)
    assert status_of(own_server().answer(b"\r\n")) == 408


@pytest.mark.parametrize("first", [b"", GET])
def test_a_connection_without_a_request_is_closed(own_server, monkeypatch, first):
    monkeypatch.setattr(front, "KEEP_ALIVE_S", 0.2)
    assert own_server().answer(first).count(b"HTTP/1.1") == bool(first)


def test_a_new_connection_takes_the_place_of_the_oldest_that_has_no_request(own_server, monkeypatch):
    monkeypatch.setattr(front, "MOST_CONNECTIONS", 4)
    server = own_server()
    halves = [server.connect() for _ in range(12)]
    try:
        for half in halves:
            half.sendall(b"GET /path HTTP/1.1\r\nX-")
            assert server.answer(LAST).endswith(b"ok")
        for half in halves[:8]:
            assert is_closed(half)
    finally:
        for half in halves:
            half.close()


def test_a_connection_with_a_request_makes_way_for_nobody(own_server, monkeypatch):
    monkeypatch.setattr(front, "MOST_CONNECTIONS", 2)
    server = own_server()
    with server.holding(), server.connect() as first, server.connect() as second:
        for busy in (first, second):
            busy.sendall(b"GET /held HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for _ in range(2):
            assert server.held.acquire(timeout=30)  # both have begun
        assert status_of(server.answer(LAST)) == 503
        server._may_answer.set()
        assert [read_to_end(busy)[-4:] for busy in (first, second)] == [b"held"] * 2
