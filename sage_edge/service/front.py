"""The front: from the bytes of a connection to requests and back, with a bound on all that strangers send."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import resource
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from sage_edge.config import Settings
from sage_edge.messages import shown
from sage_edge.service.errors import error_body
from sage_edge.service.outgoing import PatientProtocol

log = logging.getLogger(__name__)

#: Most bytes of a request line and headers; they may be exceeded by one slice.
HEAD_BYTES = 32 << 10
#: Most headers of a request, and most parameters of its query: each costs more to look at than to send.
MOST_HEADERS = MOST_PARAMETERS = 100
#: Within how many seconds of its first byte a head is there.
HEAD_S = 10.0
#: After how many seconds a connection without a request is closed.
KEEP_ALIVE_S = 30
#: Most connections at a time; fewer where the process may not open as many files.
MOST_CONNECTIONS = 1024
#: Files that are left to everything else.
_OTHER_FILES = 128
#: Bytes that are parsed before the event loop, or the request that they hold, has its turn.
_SLICE_BYTES = 8192
_HOST = re.compile(r"[\w.~!$&'()*+,;=%:\[\]-]*", re.ASCII)
_CODES = {408: "request_timeout", 503: "too_many_connections"}


@dataclass(slots=True)
class Door:
    """What the connections of a server share.

    Attributes:
        linger_bytes: Of an unread body that are thrown away before its connection ends.
        linger_s: For how long they are.
        replied: Told the status of each reply that the application does not know of.
        most: Connections at a time.
        idle: Those without a request, the oldest first: each makes way for a new one.
    """

    linger_bytes: int
    linger_s: float
    replied: Callable[[int], None]
    most: int
    idle: dict[Front, None] = field(default_factory=dict)


def configure(
    app: ASGIApp, settings: Settings, replied: Callable[[int], None] | None = None, **options: Any
) -> uvicorn.Config:
    """How uvicorn serves an application behind this front.

    Args:
        app: The application.
        settings: Bodies may be as long, and take as long, as these say; TLS.
        replied: Told the status of each reply that the application does not know of.
        options: Of ``uvicorn.Config``.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    door = Door(
        linger_bytes=settings.max_body_bytes,
        linger_s=settings.body_timeout_s,
        most=min(MOST_CONNECTIONS, max(1, files - _OTHER_FILES)),
        replied=replied or (lambda _: None),
    )
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=partial(Front, door, write_timeout_s=settings.write_timeout_s),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        ssl_certfile=settings.tls_cert_file or None,
        ssl_keyfile=settings.tls_key_file or None,
        **options,
    )


class _RefusalError(Exception):
    """A request that cannot be served, found by the parser's callbacks."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Flow(FlowControl):
    """Reads no more while some of what came is not parsed."""

    is_held = False

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class Front(PatientProtocol):
    """A connection: uvicorn's, with bounds in bytes and seconds, and strict where RFC 9112 is.

    What came is parsed slice by slice, and no further than the request that is served, so that neither tiny
    chunks nor pipelined requests pile up. A reply that is sent before the body has come ends the connection,
    but not before the caller could read it: the rest of the body is thrown away (RFC 9112, section 9.6).

    Threads: one (the event loop's).
    """

    flow: _Flow

    def __init__(self, door: Door, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._door = door
        self._rest = memoryview(b"")
        self._running: RequestResponseCycle | None = None
        self._refusal: _RefusalError | None = None
        self._is_in_head = True
        self._idle_bytes = 0  # since a head, or some of a body, was complete
        self._body_left = 0
        self._lingers = False
        self._discarded = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let a connection in; the oldest without a request makes way where there are too many."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
        if len(self.connections) > self._door.most:
            if not self._door.idle:
                self._refuse(_RefusalError(503, f"expected at most {self._door.most} connections, got more"))
                return
            next(iter(self._door.idle)).transport.abort()
        self._door.idle[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it, and let its requests know."""
        self._door.idle.pop(self, None)
        self._rest = memoryview(b"")
        if self._running is not None:
            _end(self._running)
        self._stop_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes, or throw them away behind the last reply."""
        if self._lingers:
            self._discarded += len(data)
            if self._discarded > self._door.linger_bytes:
                self.transport.abort()
        elif self._refusal is None:
            self._unset_keepalive_if_required()
            self._rest = memoryview(bytes(self._rest) + data if self._rest else data)
            self._feed()

    def _feed(self) -> None:
        """Parse what may be parsed now."""
        while self._rest and not (self._is_in_head and self._running):  # which is answered first
            has_chunks = not (self._is_in_head or self._body_left)
            size = max(_SLICE_BYTES, self._body_left)
            piece, self._rest = self._rest[:size], self._rest[size:]
            self._parse(piece)
            if has_chunks and self._rest:  # of one byte each, maybe
                self.loop.call_soon(self._feed)
                break
        self.flow.is_held = bool(self._rest)
        if self.flow.is_held:
            self.flow.pause_reading()
        elif self._is_in_head and not (self._running or self._timer or self._refusal):
            self._timer = self.loop.call_later(HEAD_S, self._on_late_head)

    def _parse(self, piece: memoryview) -> None:
        self._idle_bytes += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as exc:
            self._decline_upgrade(bytes(piece[exc.args[0] :]))
        except httptools.HttpParserCallbackError as exc:
            found = exc.__context__
            self._refuse(
                found if isinstance(found, _RefusalError) else _RefusalError(400, "expected a usable URL")
            )
        except httptools.HttpParserError as exc:
            self._refuse(_RefusalError(400, f"expected HTTP/1.1 (RFC 9112), got something else: {exc}"))
        else:
            if self._idle_bytes > HEAD_BYTES:
                what, status = ("headers", 431) if self.headers else ("a request line", 414)
                self._refuse(
                    _RefusalError(status, f"expected {what} of at most {HEAD_BYTES} bytes, got more")
                )

    def _decline_upgrade(self, behind: bytes) -> None:
        """Parse a head again without its offer to upgrade, for which httptools passes over the body."""
        self.headers = [header for header in self.headers if header[0] != b"upgrade"]
        version = self.parser.get_http_version().encode()
        first = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)
        head = b"\r\n".join([first, *(name + b": " + value for name, value in self.headers), b"", b""])
        self.parser = httptools.HttpRequestParser(self)
        self._rest = memoryview(head + behind + bytes(self._rest))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those behind a body (trailers) count for nothing."""
        if not self._is_in_head:
            return
        if len(self.headers) >= MOST_HEADERS:
            raise _RefusalError(431, f"expected at most {MOST_HEADERS} headers, got more")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin a request, unless RFC 9112 forbids it."""
        version, method = self.parser.get_http_version(), self.parser.get_method()
        named = dict(self.headers)
        hosts = [value.decode("latin-1") for name, value in self.headers if name == b"host"]
        if version not in ("1.0", "1.1"):
            raise _RefusalError(505, f"expected HTTP/1.1, got HTTP/{version}")
        if method == b"CONNECT":
            raise _RefusalError(501, "CONNECT: expected another method, since this is no proxy")
        if self.parser.should_upgrade():
            return  # to come again
        if len(hosts) > 1 or (not hosts and version == "1.1") or not all(map(_HOST.fullmatch, hosts)):
            raise _RefusalError(400, f"Host: expected one name, got {shown(hosts)}")
        if self.url.count(b"&") >= MOST_PARAMETERS:
            raise _RefusalError(414, f"expected a query of at most {MOST_PARAMETERS} parameters, got more")
        if version == "1.0" and b"transfer-encoding" in named:
            raise _RefusalError(400, "Transfer-Encoding: expected HTTP/1.1 with it, got HTTP/1.0")
        super().on_headers_complete()
        self._is_in_head = False
        self._idle_bytes, self._body_left = 0, int(named.get(b"content-length", b"0"))
        self._stop_timer()
        self._door.idle.pop(self, None)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._idle_bytes, self._body_left = 0, max(0, self._body_left - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request has come in full."""
        if self.parser.should_upgrade():
            return
        self._is_in_head, self._idle_bytes, self._body_left = True, 0, 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]
        self._running = cycle

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            await app(scope, receive, self._sender(cycle, send))

        super()._start_asgi_task(cycle, served)  # type: ignore[arg-type]

    def _sender(self, cycle: RequestResponseCycle, send: Send) -> Send:
        """What sends a reply: to HTTP/1.0 without chunks, and as the last one where the body has not come."""
        is_early = is_endless = False

        async def send_reply(message: Message) -> None:
            nonlocal is_early, is_endless
            if message["type"] == "http.response.start":
                is_early = cycle.more_body
                names = {name.lower() for name, _ in message.get("headers", ())}
                is_endless = cycle.scope["http_version"] == "1.0" and b"content-length" not in names
                if is_early:
                    self._lingers, self._rest = True, memoryview(b"")
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
                if is_endless:
                    cycle.chunked_encoding = False
            elif is_endless:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)
            if is_early and not cycle.response_complete:
                cycle.keep_alive = True  # which says here that it is not uvicorn that closes
            elif is_early:
                self._linger()

        return send_reply

    def on_response_complete(self) -> None:
        """Go on with what came meanwhile."""
        self._running = None
        super().on_response_complete()
        if self._running is not None or self.transport.is_closing():
            return
        if self._refusal is not None:
            self._send_refusal(self._refusal)
        elif self._rest:
            self._unset_keepalive_if_required()
            self._feed()
        else:
            self._door.idle[self] = None

    def _refuse(self, refusal: _RefusalError) -> None:
        """Take nothing more from this connection; what is being served is answered first."""
        log.debug("refused status=%d reason=%r", refusal.status, str(refusal))
        self._refusal, self._rest = refusal, memoryview(b"")
        if not self._is_in_head:  # the newest request breaks off in its body
            _end(self.cycle)
            self.pipeline = deque(waiting for waiting in self.pipeline if waiting[0] is not self.cycle)
            if self._running is self.cycle:
                self._running = None
        if self._running is None:
            self._send_refusal(refusal)

    def _send_refusal(self, refusal: _RefusalError) -> None:
        if self.transport.is_closing():
            return
        self._door.replied(refusal.status)
        code = _CODES.get(refusal.status, "bad_request")
        content = json.dumps(error_body(code, str(refusal)), ensure_ascii=False).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            (b"connection", b"close"),
        ]
        phrase = HTTPStatus(refusal.status).phrase
        lines = [f"HTTP/1.1 {refusal.status} {phrase}".encode(), *(n + b": " + v for n, v in headers)]
        self.transport.write(b"\r\n".join([*lines, b"", content]))
        self._linger()

    def _on_late_head(self) -> None:
        self._timer = None
        if self._running is None:
            self._refuse(_RefusalError(408, f"expected a whole request line and headers within {HEAD_S:g} s"))

    def _linger(self) -> None:
        """Throw away what the caller still sends, for a while, since closing now could cost it the reply."""
        if self.transport.is_closing():
            return
        self._lingers, self._rest = True, memoryview(b"")
        self._unset_keepalive_if_required()
        self._stop_timer()
        self._timer = self.loop.call_later(self._door.linger_s, self.transport.abort)
        self._door.idle[self] = None
        self.flow.is_held = False
        self.flow.resume_reading()
        if self.transport.can_write_eof():  # not so under TLS
            self.transport.write_eof()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _end(cycle: RequestResponseCycle) -> None:
    """Let a request know that nobody waits for its reply."""
    cycle.disconnected = True
    cycle.message_event.set()
