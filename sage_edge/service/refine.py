"""``POST /v1/refine/{plugin}``: a frame in, the best answer within its budget out."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sage_edge.errors import BodyTimeoutError, CancelledRequestError, ParameterError, SageError
from sage_edge.orchestrator import LARGEST_BUDGET, Budget, Result, Ticket
from sage_edge.service import openapi
from sage_edge.service.bodies import Body, read_body, to_document, to_frame
from sage_edge.service.context import Context, context_of
from sage_edge.service.errors import describe_finding, error_body
from sage_edge.service.replies import SSE_TYPE, choose_type, describe, reply
from sage_edge.service.sse import Listener, event, records_of_run

log = logging.getLogger(__name__)
router = APIRouter()
#: Kept free before a deadline for the way from here to the caller, which cannot be seen from here.
SENDING_NS = 1_000_000
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def _no_truth(value: Any) -> Any:
    """Refuse JSON's true and false, which would count as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("input should be a number")
    return value


_NUMERIC = BeforeValidator(_no_truth)
_MaxSteps = Annotated[
    int, Field(ge=0, description="Largest number of steps; 0 gives the initial answer."), _NUMERIC
]
_DeadlineMs = Annotated[
    float, Field(gt=0, le=LARGEST_BUDGET, description="Milliseconds from arrival to the answer."), _NUMERIC
]
_Atp = Annotated[
    float, Field(gt=0, le=LARGEST_BUDGET, description="Refinement energy in ATP; 1 ATP = 1 mJ."), _NUMERIC
]
_Eps = Annotated[float, Field(ge=0, description="Range of E_norm that counts as converged."), _NUMERIC]
_Quality = Annotated[float, Field(gt=0, le=1, description="Expected quality that is good enough."), _NUMERIC]


class BudgetFields(BaseModel):
    """The budget as it stands in a query, a form or a JSON body."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    max_steps: _MaxSteps | None = None
    deadline_ms: _DeadlineMs | None = None
    atp: _Atp | None = None
    eps: _Eps | None = None
    quality: _Quality | None = None


class BudgetHeaders(BaseModel):
    """The budget as it stands in headers; a query parameter of the same meaning wins."""

    model_config = ConfigDict(allow_inf_nan=False)

    sage_max_steps: _MaxSteps | None = None
    sage_deadline_ms: _DeadlineMs | None = None
    sage_atp: _Atp | None = None
    sage_eps: _Eps | None = None
    sage_quality: _Quality | None = None


@router.post("/v1/refine/{plugin}", tags=["refine"], summary="Refine a frame", **openapi.REFINE)
async def refine(
    request: Request,
    plugin: str,
    query: Annotated[BudgetFields, Query()],
    headers: Annotated[BudgetHeaders, Header()],
) -> Response:
    """Refine one frame until it has converged, the deadline has come or the budget is spent.

    Always the best answer so far: a limit that ends the refinement is no error, it is named in
    ``halt_reason`` and the answer says ``is_partial``.
    """
    context = context_of(request)
    start_ns = context.clock.monotonic_ns()
    media_type = choose_type(",".join(request.headers.getlist("accept")))
    context.hrm.require(plugin)
    with context.reading():
        body = await _read_in_time(request, context)
        budget = _budget(query, headers, body)
        prepared = await context.run(_prepare, context, plugin, body)
    request_id = _request_id(request)

    def submit() -> Ticket:
        return context.hrm.submit(
            plugin,
            prepared,
            budget,
            request_id=request_id,
            start_ns=start_ns,
            reserve_ns=context.reply_time.bound_ns + SENDING_NS,
        )

    if media_type == SSE_TYPE:
        listener = Listener(context.hrm.telemetry.hub, request_id)
        try:
            events = _events(context, listener, submit())
        except SageError:
            listener.close()
            raise
        return StreamingResponse(events, media_type=SSE_TYPE, headers={"Cache-Control": "no-store"})
    ticket = submit()
    result = await _await_result(request, ticket)
    answered_ns = start_ns + int((result.queue_ms + result.refine_ms) * 1e6)
    total_ms = (context.clock.monotonic_ns() - start_ns) / 1e6
    response = await context.run(reply, result, media_type, total_ms)
    context.reply_time.add(context.clock.monotonic_ns() - answered_ns)
    _log(ticket, result, (context.clock.monotonic_ns() - start_ns) / 1e6)
    return response


async def _read_in_time(request: Request, context: Context) -> Body:
    within_s = context.settings.body_timeout_s
    try:
        return await asyncio.wait_for(read_body(request, context.settings.max_body_bytes), within_s)
    except asyncio.TimeoutError as exc:
        raise BodyTimeoutError(f"body: expected all of it within {within_s:g} s") from exc


def _prepare(context: Context, plugin: str, body: Body) -> Any:
    settings = context.settings
    if context.hrm.require(plugin).takes == "document":
        return context.hrm.prepare(plugin, to_document(body, settings.max_body_bytes))
    return context.hrm.prepare(plugin, to_frame(body, settings.max_frame_pixels))


def _budget(query: BudgetFields, headers: BudgetHeaders, body: Body) -> Budget:
    """One budget: query over header over body."""
    merged = dict(body.fields)
    merged |= {
        name.removeprefix("sage_"): value for name, value in headers.model_dump(exclude_none=True).items()
    }
    merged |= query.model_dump(exclude_none=True)
    try:
        fields = BudgetFields.model_validate(merged)
    except ValidationError as exc:
        raise ParameterError(describe_finding(exc.errors()[0])) from exc
    return Budget(**fields.model_dump())


def _request_id(request: Request) -> str:
    """The caller's own name for the request, if it is a usable one."""
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


async def _await_result(request: Request, ticket: Ticket) -> Result:
    """The result, or the end of the refinement when the caller goes away first."""
    answer = asyncio.ensure_future(asyncio.wrap_future(ticket.future))
    gone = asyncio.ensure_future(_gone(request))
    try:
        waiting: set[asyncio.Future[Any]] = {answer, gone}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            ticket.cancel()
        return await answer
    except CancelledRequestError:
        log.info("request_id=%s plugin=%s outcome=cancelled", ticket.request_id, ticket.plugin)
        raise
    finally:
        gone.cancel()
        ticket.cancel()  # when the drain's time is up it is this task that ends first


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(context: Context, listener: Listener, ticket: Ticket) -> AsyncIterator[bytes]:
    """One event for each step as it happens, then the result; a caller that goes away ends the run."""
    answer = asyncio.wrap_future(ticket.future)
    try:
        async for record in records_of_run(listener, ticket.run_id, answer):
            yield event("step", record, str(record["seq"]))
        result = await answer
        total_ms = (context.clock.monotonic_ns() - ticket.start_ns) / 1e6
        _log(ticket, result, total_ms)
        yield event("result", describe(result, total_ms))
    except SageError as exc:
        yield event("error", error_body(exc.code, str(exc)))
    finally:
        ticket.cancel()
        answer.cancel()
        listener.close()


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
