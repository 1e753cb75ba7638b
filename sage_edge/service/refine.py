"""``POST /v1/refine/{plugin}``: a frame in, the best answer within its budget out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response, StreamingResponse

from sage_edge.errors import SageError
from sage_edge.memory import Reservation
from sage_edge.orchestrator import LARGEST_BUDGET, Entry, Result, Ticket
from sage_edge.results import describe
from sage_edge.service import openapi, sse
from sage_edge.service.access import key_of
from sage_edge.service.answers import accepted, keep_for_later
from sage_edge.service.bodies import Body, Parse, read_body
from sage_edge.service.context import Context, context_of
from sage_edge.service.errors import describe_error
from sage_edge.service.models import Queued
from sage_edge.service.options import ONCE, RequestFields, fields_of_headers, read, request_id_of
from sage_edge.service.preferences import Preferences, preferences_of
from sage_edge.service.replies import SSE_TYPE, choose_type, reply
from sage_edge.service.sse import Listener, event, records_of_run
from sage_edge.service.waiting import has_ended_within, wait_for_end

log = logging.getLogger(__name__)
router = APIRouter()


_ANSWER = openapi.answer("The best answer within the budget")
_EVENTS = openapi.text(
    SSE_TYPE, "step events, then one result or error", f"id: 0\nevent: step\ndata: {openapi.RECORD}\n\n"
)


@router.post(
    "/v1/refine/{name}",
    tags=["refine"],
    summary="Refine an input",
    dependencies=ONCE,
    responses={
        200: {**_ANSWER, "content": {**_ANSWER["content"], **_EVENTS["content"]}},
        202: openapi.reply(
            Queued, "To be fetched later, as was preferred", {**openapi.RETRY_AFTER, **openapi.LOCATION}
        ),
        **openapi.failures(*openapi.REFINE_ERRORS),
    },
    openapi_extra={"parameters": openapi.REFINE_HEADERS},
)
async def refine(
    request: Request,
    plugin: Annotated[str, Path(alias="name", description="The plugin's name.")],
    query: Annotated[RequestFields, Query()],
) -> Response:
    """Refine one input until it has converged, the deadline has come or the budget is spent.

    Always the best answer so far: a limit that ends the refinement is no error, it is named in
    ``halt_reason`` and the answer says ``is_partial``. Each query parameter may also come as a header,
    ``max_steps`` as ``Sage-Max-Steps``, or in the body; the query wins over a header, that over the body.
    """
    context = context_of(request)
    start_ns = context.clock.monotonic_ns()
    media_type = choose_type(",".join(request.headers.getlist("accept")))
    wishes = preferences_of(request.headers.getlist("prefer"))
    kind = context.kind_of(plugin)
    most = context.settings.max_body_bytes
    with context.holding() as held:
        with context.reading(request) as room:
            parse = await context.in_time(request, read_body(request, kind, most, room))
            fields = {**fields_of_headers(request.headers), **query.model_dump(exclude_none=True)}
            entry = await context.run(plugin, _entry, context, plugin, parse, fields, held)
        entry = replace(entry, request_id=request_id_of(request))
        if media_type == SSE_TYPE:
            return _stream(context, entry, wishes, start_ns, held)
        if wishes.is_async:
            ticket = keep_for_later(context, entry, start_ns, key_of(request.scope), held)
            if not wishes.wait_s or not await has_ended_within(ticket, wishes.wait_s):
                return accepted(ticket, wishes)
        else:
            ticket = context.submit(_due(entry, wishes), start_ns)
            await wait_for_end(request, [ticket])
        result = ticket.future.result()
        answered_ns = start_ns + int((result.queue_ms + result.refine_ms) * 1e6)
        response = await context.run(plugin, reply, result, media_type, context.since_ms(start_ns))
    context.learn_reply(ticket, answered_ns)
    _log(ticket, result, context.since_ms(start_ns))
    response.headers.update(_applied(wishes))
    return response


def _entry(
    context: Context, plugin: str, parse: Parse[Body], fields: Mapping[str, Any], held: Reservation
) -> Entry:
    """A body's input under its options, over which those of query and headers win."""
    body = parse()
    options = read(RequestFields, {**body.fields, **fields})
    return options.entry(plugin, *context.prepare(plugin, body, held))


def _due(entry: Entry, wishes: Preferences) -> Entry:
    """The entry, answered within the seconds that its caller is ready to wait."""
    if not wishes.wait_s:
        return entry
    due_ms = min(wishes.wait_s * 1e3, entry.budget.deadline_ms or LARGEST_BUDGET)
    return replace(entry, budget=replace(entry.budget, deadline_ms=due_ms))


def _applied(wishes: Preferences) -> dict[str, str]:
    return {"Preference-Applied": wishes.wait_field} if wishes.wait_s else {}


def _stream(
    context: Context, entry: Entry, wishes: Preferences, start_ns: int, held: Reservation
) -> Response:
    listener = context.listen(request_id=entry.request_id)
    try:
        ticket = context.submit(_due(entry, wishes), start_ns)
    except SageError:
        listener.close()
        raise
    headers = {"Cache-Control": "no-store", **_applied(wishes)}
    events = sse.kept_alive(_events(context, listener, ticket, held.move()), sse.HEARTBEAT_S)
    return StreamingResponse(events, media_type=SSE_TYPE, headers=headers)


async def _events(
    context: Context, listener: Listener, ticket: Ticket, held: Reservation
) -> AsyncGenerator[bytes, None]:
    """One event for each step as it happens, then the result; a caller that goes away ends the run."""
    answer = asyncio.wrap_future(ticket.future)
    try:
        async for record in records_of_run(listener, ticket.run_id, answer):
            yield event("step", record, str(record["seq"]))
        result = await answer
        total_ms = context.since_ms(ticket.start_ns)
        _log(ticket, result, total_ms)
        yield event("result", describe(result, total_ms))
    except SageError as exc:
        yield event("error", describe_error(exc))
    finally:
        ticket.cancel()
        answer.cancel()
        listener.close()
        held.release()


def _log(ticket: Ticket, result: Result, total_ms: float) -> None:
    log.info(
        "request_id=%s plugin=%s backend=%s outcome=%s steps=%d E=%.6g "
        "queue_ms=%.2f refine_ms=%.2f total_ms=%.2f",
        ticket.request_id,
        ticket.plugin,
        result.backend,
        result.run.halt_reason,
        result.run.step_idx,
        result.run.best_E,
        result.queue_ms,
        result.refine_ms,
        total_ms,
    )
