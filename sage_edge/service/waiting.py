"""Waiting for refinements on behalf of a caller who may go away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from fastapi import Request

from sage_edge.orchestrator import Ticket

log = logging.getLogger(__name__)


async def wait_for_end(request: Request, tickets: Sequence[Ticket]) -> None:
    """Wait until all tickets have ended; all are given up when the caller goes away first.

    Args:
        request: The caller's; its body has been read.
        tickets: At least one.
    """
    ended = asyncio.gather(*(asyncio.wrap_future(t.future) for t in tickets), return_exceptions=True)
    gone = asyncio.ensure_future(_gone(request))
    try:
        waiting: set[asyncio.Future[Any]] = {ended, gone}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            _give_up(tickets)
        await ended
    except asyncio.CancelledError:  # when the drain's time is up it is this task that ends first
        _give_up(tickets)
        raise
    finally:
        gone.cancel()


async def has_ended_within(ticket: Ticket, within_s: float) -> bool:
    """Whether a ticket has ended, or ends in that time; its caller may go away and come back."""
    ended = asyncio.wrap_future(ticket.future)
    await asyncio.wait([ended], timeout=within_s)
    ended.cancel()
    return ticket.future.done()


def _give_up(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        ticket.cancel()
        log.info("request_id=%s plugin=%s outcome=cancelled", ticket.request_id, ticket.plugin)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
