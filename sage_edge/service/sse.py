"""Server-sent events: telemetry records as they are drained."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from sage_edge.orchestrator import Result
from sage_edge.telemetry import Hub, Record, Sealed

#: Records that a slow listener may be behind before the oldest are dropped for it.
BACKLOG = 4096
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
    """A subscription to the hub, read from the event loop.

    Owns: its subscription, from construction until ``close``. Create it on a running loop.
    """

    def __init__(self, hub: Hub, request_id: str | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._batches: asyncio.Queue[list[Record] | None] = asyncio.Queue()
        self._waiting = 0
        self.dropped = 0
        self.close = hub.subscribe(self._receive, request_id)

    def _receive(self, records: list[Record] | None) -> None:
        """On the drain's thread."""
        self._loop.call_soon_threadsafe(self._put, records)

    def _put(self, records: list[Record] | None) -> None:
        self._batches.put_nowait(records)
        self._waiting += len(records or ())
        while self._waiting > BACKLOG:
            dropped = self._batches.get_nowait()
            self._waiting -= len(dropped or ())
            self.dropped += len(dropped or ())

    async def next(self) -> list[Record] | None:
        """The next records; None when the hub has closed."""
        batch = await self._batches.get()
        self._waiting -= len(batch or ())
        return batch


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
