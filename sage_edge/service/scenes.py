"""``POST /v1/scenes``: inputs that share one budget and halt together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from sage_edge.errors import SageError, SupersededError
from sage_edge.inputs import JSON_TYPE
from sage_edge.memory import Reservation
from sage_edge.orchestrator import Budget, Entry, Scene, Ticket
from sage_edge.results import describe, finite
from sage_edge.service import openapi
from sage_edge.service.bodies import Parse, SceneBody, naming_member, read_scene
from sage_edge.service.context import Context, context_of
from sage_edge.service.errors import describe_error
from sage_edge.service.models import SceneResult
from sage_edge.service.options import ONCE, RequestFields, SceneFields, read
from sage_edge.service.replies import choose_type
from sage_edge.service.waiting import wait_for_end

log = logging.getLogger(__name__)
router = APIRouter()


@router.post(
    "/v1/scenes",
    tags=["refine"],
    summary="Refine a scene",
    dependencies=ONCE,
    responses={
        200: openapi.reply(SceneResult, "Every result, in the order of the members"),
        **openapi.failures(*(kind for kind in openapi.REFINE_ERRORS if kind is not SupersededError)),
    },
)
async def refine_scene(request: Request, query: Annotated[SceneFields, Query()]) -> Response:
    """Refine several inputs under one shared budget until their joint energy H has settled.

    Either all of them are refined or none is; one that fails later has its error in its place.
    """
    context = context_of(request)
    start_ns = context.clock.monotonic_ns()
    choose_type(",".join(request.headers.getlist("accept")), [JSON_TYPE])
    most = context.settings.max_body_bytes
    with context.holding() as held:
        with context.reading(request) as room:
            parse = await context.in_time(request, read_scene(request, context.kind_of, most, room))
            fields = query.model_dump(exclude_none=True)
            shared, entries = await context.run("scenes", _entries, context, parse, fields, held)
        budget = Budget(atp=shared.atp, deadline_ms=shared.deadline_ms)
        scene, tickets = context.submit_scene(entries, budget, shared.policy, start_ns)
        await wait_for_end(request, tickets)
        total_ms = context.since_ms(start_ns)
        described = await context.run("scenes", _describe, scene, tickets, start_ns, total_ms)
    log.info(
        "scene_id=%s members=%d policy=%s global_halt=%s H=%.6g total_ms=%.2f",
        scene.scene_id,
        len(tickets),
        scene.rules.policy,
        scene.global_halt,
        scene.energy,
        context.since_ms(start_ns),
    )
    return JSONResponse(described)


def _entries(
    context: Context, parse: Parse[SceneBody], fields: Mapping[str, Any], held: Reservation
) -> tuple[SceneFields, list[Entry]]:
    """What a body's members share, over which the query wins, and each of them."""
    body = parse()
    shared = read(SceneFields, {**body.fields, **fields})
    entries = []
    for number, (plugin, member) in enumerate(body.members):
        with naming_member(number):
            options = read(RequestFields, member.fields)
            entries.append(options.entry(plugin, *context.prepare(plugin, member, held)))
    return shared, entries


def _describe(scene: Scene, tickets: list[Ticket], start_ns: int, total_ms: float) -> dict[str, Any]:
    """The JSON answer; an H that is not finite is null."""
    return {
        "scene_id": scene.scene_id,
        "results": [_outcome(ticket, total_ms) for ticket in tickets],
        "H": [
            {
                "t_ms": (sample.time_ns - start_ns) / 1e6,
                "run_id": sample.run_id,
                "step_idx": sample.step_idx,
                "H": finite(sample.H),
            }
            for sample in scene.H
        ],
        "global_halt": scene.global_halt,
        "budget": {
            "policy": scene.rules.policy,
            "atp": None if scene.budget_uatp is None else scene.budget_uatp / 1e6,
            "ATP_spent": scene.spent_uatp / 1e6,
        },
    }


def _outcome(ticket: Ticket, total_ms: float) -> dict[str, Any]:
    try:
        return describe(ticket.future.result(), total_ms)
    except SageError as exc:
        return describe_error(exc)
