"""Server-sent events: telemetry records as they are drained."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from sage_edge.memory import Reservation
from sage_edge.orchestrator import Result
from sage_edge.telemetry import Hub, Record, Sealed

#: Records that a listener is given at once.
PAGE = 64
#: Memory of these and of its connection.
READER_BYTES = 256 << 10
#: Seconds without an event after which a comment is sent, as the HTML standard advises (section 9.2.7):
#: proxies close what is silent, and a reader that has gone is noticed by it.
HEARTBEAT_S = 15.0
_HEARTBEAT = b": still here\n\n"
#: How long a finished request waits for the record of its last step, which the mailbox may have lost.
LAST_RECORD_S = 1.0


def event(name: str, data: Any, event_id: str | None = None) -> bytes:
    """One event in the wire format of the HTML standard, section 9.2."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    text = data.line if isinstance(data, Sealed) else json.dumps(data).encode()
    return f"{head}event: {name}\ndata: ".encode() + text + b"\n\n"


async def kept_alive(
    events: AsyncGenerator[bytes, None], every_s: float, last: bytes = b""
) -> AsyncIterator[bytes]:
    """Events, a comment wherever none has come for ``every_s``, and ``last`` when they have ended."""
    coming: asyncio.Future[bytes] = asyncio.ensure_future(anext(events))
    try:
        while True:
            while not (await asyncio.wait([coming], timeout=every_s))[0]:
                yield _HEARTBEAT
            try:
                came = coming.result()
            except StopAsyncIteration:
                break
            yield came
            coming = asyncio.ensure_future(anext(events))
        if last:
            yield last
    finally:
        coming.cancel()
        await asyncio.wait([coming])
        await events.aclose()


class Listener:
    """A reader of the hub, on the event loop: a place in it, so that who reads slowly holds nothing up.

    What has left the hub before it was read counts as dropped.

    Owns: its subscription and its room, from construction until ``close``. Create it on a running loop.
    """

    def __init__(
        self, hub: Hub, room: Reservation, *, request_id: str | None = None, after: int | None = None
    ) -> None:
        """Begin to read.

        Args:
            hub: What is read.
            room: Memory for it.
            request_id: Whose steps; None for every record.
            after: The record behind which to begin; None: only what comes from now on.
        """
        self._hub = hub
        self._room = room
        self._request_id = request_id
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._is_over = False
        self._seen = hub.newest if after is None else after
        self.dropped = 0
        self._unsubscribe = hub.subscribe(self._receive, request_id)

    def close(self) -> None:
        """Read no more; it may be called more than once."""
        self._unsubscribe()
        self._room.release()

    def _receive(self, records: list[Record] | None) -> None:
        """On the drain's thread."""
        self._loop.call_soon_threadsafe(self._note, records is None)

    def _note(self, is_over: bool) -> None:
        self._is_over = self._is_over or is_over
        self._news.set()

    async def next(self) -> list[Record] | None:
        """The next records, a page of them at most; None when the hub has closed."""
        while True:
            self._news.clear()
            records, missed = self._hub.after(self._seen, PAGE)
            self.dropped += missed
            if records:
                self._seen = records[-1]["seq"]
                if wanted := [r for r in records if self._request_id in (None, r.get("request_id"))]:
                    return wanted
            elif self._is_over:
                return None
            else:
                await self._news.wait()


async def records_of_run(
    listener: Listener, run_id: int, answer: asyncio.Future[Result]
) -> AsyncIterator[Record]:
    """The records of one run up to its last; ends early if that one was lost."""
    while True:
        batch = asyncio.ensure_future(listener.next())
        waiting: set[asyncio.Future[Any]] = {batch} if answer.done() else {batch, answer}
        timeout_s = LAST_RECORD_S if answer.done() else None
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not batch.done():
            batch.cancel()
            if timeout_s is not None:
                return
            continue
        records = batch.result()
        if records is None:
            return
        for record in records:
            if record["run_id"] == run_id:
                yield record
                if record["halt_reason"] is not None:
                    return
