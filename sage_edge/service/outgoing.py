"""Replies on their way out: in pieces, counted, and only for as long as somebody reads them."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sage_edge.errors import FrameTooLargeError, MemoryFullError
from sage_edge.memory import Account
from sage_edge.service.errors import error_reply

#: Bytes of a reply that are handed to its connection at once, which may hold them until they are read.
PIECE_BYTES = 64 << 10


class Outgoing:
    """Hands long replies to their connections piece by piece, and refuses those for which there is no room.

    Args:
        app: Whose replies.
        room: Where they count while they are sent.

    Threads: one (the event loop's).
    """

    def __init__(self, app: ASGIApp, *, room: Account) -> None:
        self._app = app
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held, is_refused = self._room.reserve(), False

        async def send_in_pieces(message: Message) -> None:
            nonlocal is_refused
            if is_refused:
                return
            if message["type"] == "http.response.start":
                length = int(Headers(raw=message["headers"]).get("content-length", "0"))
                try:
                    held.grow(length if length > PIECE_BYTES else 0)
                except (MemoryFullError, FrameTooLargeError) as exc:
                    is_refused = True
                    await error_reply(exc)(scope, receive, send)
                    return
            body = message.get("body", b"")
            if len(body) <= PIECE_BYTES:
                await send(message)
                return
            for first in range(0, len(body), PIECE_BYTES):
                is_last = first + PIECE_BYTES >= len(body)
                piece = bytes(body[first : first + PIECE_BYTES])
                more_body = message.get("more_body", False) or not is_last
                await send({"type": "http.response.body", "body": piece, "more_body": more_body})

        with held:
            await self._app(scope, receive, send_in_pieces)


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's connection, which is cut when what was written to it stays unread for too long.

    Threads: one (the event loop's).
    """

    def __init__(self, *args: Any, write_timeout_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._write_timeout_s = write_timeout_s
        self._cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask to be told as soon as anything stays unwritten, so that nothing more is written meanwhile."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=1, low=0)  # at 0 that of TLS would never resume

    def pause_writing(self) -> None:
        """What was written waits for its reader."""
        super().pause_writing()
        if self._cut is None:
            self._cut = self.loop.call_later(self._write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """All of it has gone."""
        super().resume_writing()
        self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody reads any more."""
        super().connection_lost(exc)
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None


def bound_unsent(listener: socket.socket) -> None:
    """Let the kernel take little of a reply before it can send it, on all connections to come."""
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 2 * PIECE_BYTES)
