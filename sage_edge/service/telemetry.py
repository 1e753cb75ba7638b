"""Telemetry over HTTP: records as JSON lines and as events, their schema, and the metrics."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from sage_edge.errors import ParameterError
from sage_edge.service import openapi, sse
from sage_edge.service.context import context_of
from sage_edge.service.models import AuditHead, Error
from sage_edge.service.options import ONCE
from sage_edge.service.replies import SSE_TYPE
from sage_edge.service.sse import Listener, event
from sage_edge.telemetry import CONTENT_TYPE, Record, to_line

NDJSON_TYPE = "application/x-ndjson"
SCHEMA_TYPE = "application/schema+json"
router = APIRouter(tags=["telemetry"])


class Span(BaseModel):
    """The part of the telemetry that is asked for."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(-1, ge=-1, description="Sequence number of the last record already seen; -1 for all.")
    limit: int = Field(1000, ge=1, le=10_000)


class Start(BaseModel):
    """Where a stream begins."""

    model_config = ConfigDict(extra="forbid")

    after: int | None = Field(None, ge=-1, description="Start behind this record; by default now.")


@router.get(
    "/v1/telemetry",
    summary="Records as JSON lines",
    dependencies=ONCE,
    response_class=Response,
    responses={
        200: openapi.text(NDJSON_TYPE, "Records, one a line", openapi.RECORD + "\n"),
        **openapi.failures(ParameterError),
    },
)
async def records(request: Request, span: Annotated[Span, Query()]) -> Response:
    """Up to ``limit`` records that follow ``after``, oldest first.

    ``Sage-Telemetry-Last`` is the ``after`` of the next call; ``Sage-Telemetry-Missed`` counts the
    records in between that are no longer in memory (the journal has them) or were lost. Where ``after`` is no
    number of this chain, since the service began a new one, all records are given and
    ``Sage-Telemetry-Reset`` is 1.
    """
    context = context_of(request)
    hub = context.hrm.telemetry.hub
    after = span.after if hub.knows(span.after) else -1
    found, missed = hub.after(after, span.limit)
    last = found[-1]["seq"] if found else after
    headers = {"Sage-Telemetry-Last": str(last), "Sage-Telemetry-Missed": str(missed)}
    if after != span.after:
        headers["Sage-Telemetry-Reset"] = "1"
    lines = await context.run("telemetry", _to_lines, found)  # megabytes of them would hold up all others
    return Response(lines, media_type=NDJSON_TYPE, headers=headers)


@router.get(
    "/v1/telemetry/stream",
    summary="Records as they come",
    dependencies=ONCE,
    response_class=Response,
    responses={
        200: openapi.text(
            SSE_TYPE,
            "``record`` events; ``dropped`` counts those that are missing before the next; ``reset`` says "
            "that the id to resume from is none of this chain, and all records follow; ``end`` at a drain",
            f"id: 0\nevent: record\ndata: {openapi.RECORD}\n\n",
        ),
        **openapi.failures(ParameterError),
    },
)
async def stream(
    request: Request,
    start: Annotated[Start, Query()],
    last_event_id: Annotated[int | None, Header(ge=-1)] = None,
) -> Response:
    """One ``record`` event for each record; resumable by ``Last-Event-ID``."""
    resume = last_event_id if last_event_id is not None else start.after
    context = context_of(request)
    is_known = resume in (None, -1) or context.hrm.telemetry.hub.knows(resume)
    listener = context.listen(after=resume)
    last = event("end", {"reason": "draining"})
    events = sse.kept_alive(_stream(listener, None if is_known else resume), sse.HEARTBEAT_S, last)
    return StreamingResponse(events, media_type=SSE_TYPE, headers={"Cache-Control": "no-store"})


@router.get(
    "/v1/telemetry/schema",
    summary="JSON Schema of a record",
    response_class=Response,
    responses={
        200: {
            "description": "JSON Schema, draft 2020-12",
            "content": {SCHEMA_TYPE: {"schema": {"type": "object"}, "example": {"title": "A record"}}},
        }
    },
)
async def schema(request: Request) -> Response:
    """The schema that every record is valid under."""
    return JSONResponse(context_of(request).hrm.telemetry.validator.schema, media_type=SCHEMA_TYPE)


@router.get(
    "/v1/audit/head",
    summary="The newest signed head of the audit chain",
    responses={
        200: openapi.reply(AuditHead, "The head"),
        404: openapi.reply(Error, "`not_found`: nothing is signed"),
    },
)
async def audit_head(request: Request) -> JSONResponse:
    """Sequence number and hash of the last record that was signed, with its signature."""
    head = context_of(request).hrm.telemetry.audit_head()
    if head is None:
        raise HTTPException(404, "expected a signed record, got none so far; telemetry_dir must be set")
    return JSONResponse(head)


@router.get(
    "/metrics",
    summary="Prometheus exposition",
    response_class=Response,
    responses={200: openapi.text("text/plain", "The metrics", 'sage_slots{plugin="vision"} 8.0\n')},
)
async def metrics(request: Request) -> Response:
    """Counters, gauges and histograms in Prometheus' text format."""
    return Response(context_of(request).hrm.telemetry.metrics.exposition(), media_type=CONTENT_TYPE)


def _to_lines(records: list[Record]) -> str:
    return "".join(to_line(record) + "\n" for record in records)


async def _stream(listener: Listener, reset: int | None) -> AsyncGenerator[bytes, None]:
    try:
        yield b": connected\n\n"
        if reset is not None:
            yield event("reset", {"last_event_id": reset})
        while (batch := await listener.next()) is not None:
            if listener.dropped:
                yield event("dropped", {"records": listener.dropped})
                listener.dropped = 0
            for record in batch:
                yield event("record", record, str(record["seq"]))
    finally:
        listener.close()
