"""``POST /v1/quality``: how good an answer was, measured by somebody who knows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from sage_edge.irp.reputation import Outcome
from sage_edge.service import openapi
from sage_edge.service.bodies import read_document
from sage_edge.service.context import context_of
from sage_edge.service.options import NUMERIC, read

router = APIRouter()

_Share = Annotated[float, Field(ge=0, le=1), NUMERIC]
_Count = Annotated[int, Field(ge=0, le=2**53), NUMERIC]


class ValueInputs(BaseModel):
    """What an answer was worth to its user: the inputs of V3, all or none."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    satisfaction: _Share | None = None
    verified_claims: _Count | None = None
    total_claims: _Count | None = None
    witness_confidence: _Share | None = None
    value_transferred: bool | None = Field(None, strict=True)


class QualityReport(ValueInputs):
    """A measured quality."""

    request_id: str = Field(min_length=1, max_length=128)
    quality: _Share
    source: Literal["label", "audit"]
    outcome: Outcome | None = None


@router.post(
    "/v1/quality",
    tags=["refine"],
    summary="Report a quality",
    **openapi.quality(QualityReport.model_json_schema()),
)
async def report_quality(request: Request) -> dict[str, Any]:
    """Update the trust in the plugin that gave an answer, from its quality by a label or an audit.

    Trust is never updated from convergence alone: this is the only way.
    """
    context = context_of(request)
    with context.reading():
        document = await context.in_time(read_document(request, context.settings.max_body_bytes))
    report = read(QualityReport, document)
    inputs = report.model_dump(include=set(ValueInputs.model_fields), exclude_none=True)
    return await context.run(
        context.hrm.report_quality,
        report.request_id,
        report.quality,
        source=report.source,
        outcome=report.outcome,
        inputs=inputs or None,
    )
