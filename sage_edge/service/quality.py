"""``POST /v1/quality``: how good an answer was, measured by somebody who knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from sage_edge.errors import UnknownRequestError
from sage_edge.service import openapi
from sage_edge.service.bodies import Parse, read_document
from sage_edge.service.context import Context, context_of
from sage_edge.service.models import QualityReport, TrustUpdate, ValueInputs
from sage_edge.service.options import read

router = APIRouter(tags=["refine"])


@router.post(
    "/v1/quality",
    summary="Report a quality",
    responses={
        200: openapi.reply(TrustUpdate, "The trust in the plugin, before and after"),
        **openapi.failures(UnknownRequestError, *openapi.BODY_ERRORS),
    },
)
async def report_quality(request: Request) -> JSONResponse:
    """Update the trust in the plugin that gave an answer, from its quality by a label or an audit.

    Trust is never updated from convergence alone: this is the only way.
    """
    context = context_of(request)
    most = context.settings.max_body_bytes
    with context.reading(request) as room:
        parse = await context.in_time(request, read_document(request, most, room))
        return JSONResponse(await context.run("quality", _report, context, parse))


def _report(context: Context, parse: Parse[Any]) -> Mapping[str, Any]:
    report = read(QualityReport, parse())
    inputs = report.model_dump(include=set(ValueInputs.model_fields), exclude_none=True)
    return context.hrm.report_quality(
        report.request_id,
        report.quality,
        source=report.source,
        outcome=report.outcome,
        inputs=inputs or None,
    )
