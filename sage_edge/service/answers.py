"""``/v1/refine/{request_id}``: answers that are fetched later, and only ever improve."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response

from sage_edge.errors import (
    CancelledRequestError,
    ClosingError,
    DeadlineError,
    DeviceError,
    EngineError,
    MemoryFullError,
    NotAcceptableError,
    ParameterError,
    SageError,
    SupersededError,
    UnknownRequestError,
)
from sage_edge.memory import Reservation
from sage_edge.orchestrator import Entry, Result, Ticket
from sage_edge.service import openapi
from sage_edge.service.access import key_of
from sage_edge.service.context import Context, context_of
from sage_edge.service.errors import RETRY_AFTER_S
from sage_edge.service.models import Queued
from sage_edge.service.preferences import Preferences
from sage_edge.service.replies import WHOLE_TYPES, choose_type, reply

router = APIRouter(tags=["refine"])
_GIVEN_UP: openapi.Responses = {
    204: {"description": "Given up"},
    **openapi.failures(UnknownRequestError, ParameterError),
}
_RequestId = Annotated[str, Path(alias="name", description="The request's id.")]


@router.get(
    "/v1/refine/{name}",
    summary="The answer of a request",
    response_class=Response,
    responses={
        200: openapi.answer("The best answer so far, or the final one", openapi.TAG),
        202: openapi.reply(Queued, "It waits for a slot", openapi.RETRY_AFTER),
        304: {"description": "The answer is still the one that If-None-Match names", "headers": openapi.TAG},
        **openapi.failures(
            UnknownRequestError,
            NotAcceptableError,
            SupersededError,
            ParameterError,
            MemoryFullError,
            EngineError,
            DeviceError,
            DeadlineError,
            ClosingError,
        ),
    },
    openapi_extra={"parameters": [openapi.header("If-None-Match", "the ETag of the answer already there")]},
)
async def answer(request: Request, request_id: _RequestId) -> Response:
    """The best answer so far of a request that was posted with ``Prefer: respond-async``.

    Its energy never rises from one call to the next; its ETag changes whenever it has improved, and when
    it is final.
    """
    context = context_of(request)
    media_type = choose_type(",".join(request.headers.getlist("accept")), WHOLE_TYPES)
    ticket = context.hrm.requests.find(request_id, key_of(request.scope))
    with context.holding() as held:
        if not ticket.future.done():  # the best so far is decoded for this caller alone
            held.grow(ticket.needed_bytes)
        try:
            result = await _best_so_far(context, ticket)
        except CancelledRequestError as exc:
            raise UnknownRequestError(f"request {request_id!r}: deleted a moment ago") from exc
        if result is None:
            return _queued(ticket)
        headers = {"ETag": _tag(result, media_type), "Cache-Control": "no-cache", "Vary": "Accept"}
        if _is_known(request.headers.getlist("if-none-match"), headers["ETag"]):
            return Response(status_code=304, headers=headers)
        total_ms = result.queue_ms + result.refine_ms
        response = await context.run(ticket.plugin, reply, result, media_type, total_ms)
    response.headers.update(headers)
    return response


@router.delete("/v1/refine/{name}", summary="Give a request up", status_code=204, responses=_GIVEN_UP)
async def give_up(request: Request, request_id: _RequestId) -> Response:
    """End a request before its next step, and forget its answer."""
    context_of(request).hrm.requests.drop(request_id, key_of(request.scope))
    return Response(status_code=204)


def keep_for_later(context: Context, entry: Entry, start_ns: int, owner: str, held: Reservation) -> Ticket:
    """Queue an input whose answer is fetched by the request's id, with the key that it was posted with.

    Args:
        context: Of the service.
        entry: The input.
        start_ns: When the request arrived.
        owner: The key's name.
        held: What it takes until its answer; taken over.

    Raises:
        ParameterError: The id is in use, or cannot stand in a path.
        CapacityError: Too many requests run for later answers, or there is no room to keep the answer.
        SageError: It is refused as any other.
    """
    request_id = entry.request_id or ""
    if "/" in request_id or request_id in (".", ".."):
        raise ParameterError(f"X-Request-Id: expected a name that can end a path, got {request_id!r}")
    room = context.hrm.requests.check(request_id, entry.needed_bytes, owner)
    try:
        ticket = context.submit(entry, start_ns)
    except SageError:
        room.release()
        raise
    until_answered = held.move()
    ticket.future.add_done_callback(lambda _: until_answered.release())
    context.hrm.requests.keep(ticket, room, owner)
    return ticket


def accepted(ticket: Ticket, wishes: Preferences) -> Response:
    """The reply to a caller who comes back for the answer."""
    response = _queued(ticket)
    response.headers["Location"] = "/v1/refine/" + quote(ticket.request_id, safe="")
    applied = ["respond-async"] if wishes.wait_s is None else ["respond-async", wishes.wait_field]
    response.headers["Preference-Applied"] = ", ".join(applied)
    return response


def _queued(ticket: Ticket) -> Response:
    headers = {"Retry-After": str(RETRY_AFTER_S), "Sage-Request-Id": ticket.request_id}
    return JSONResponse({"request_id": ticket.request_id, "state": "queued"}, 202, headers=headers)


async def _best_so_far(context: Context, ticket: Ticket) -> Result | None:
    """The final result, or the best after the tick that runs; None while it waits for a slot.

    Raises:
        SageError: What the refinement ended with.
    """
    if ticket.future.done():
        return ticket.future.result()
    if not ticket.is_admitted:
        return None
    ended = asyncio.wrap_future(ticket.future)
    shown = asyncio.wrap_future(context.hrm.peek(ticket))
    waiting: set[asyncio.Future[Any]] = {ended, shown}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if ticket.future.done():
        shown.cancel()
        return await ended
    ended.cancel()
    return shown.result()


def _tag(result: Result, media_type: str) -> str:
    """The entity tag: the step and branch of the answer, its form, and whether it is final."""
    run, form = result.run, media_type.rpartition("/")[2]
    return f'"{run.branch}-{run.best_step}-{form}{"-final" if result.is_final else ""}"'


def _is_known(headers: list[str], tag: str) -> bool:
    """Whether If-None-Match names the tag (RFC 9110, section 13.1.2)."""
    known = [entry.strip().removeprefix("W/") for entry in ",".join(headers).split(",")]
    return tag in known or "*" in known
