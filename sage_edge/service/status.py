"""Liveness, readiness, what runs where, and which plugins there are."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from sage_edge import native
from sage_edge.config import VERSION
from sage_edge.irp import IRPPlugin
from sage_edge.orchestrator import Ledger
from sage_edge.service import openapi
from sage_edge.service.context import Context, context_of
from sage_edge.service.errors import RETRY_AFTER_S
from sage_edge.service.models import Liveness, PluginInfo, Readiness, Status

router = APIRouter(tags=["status"])


@router.get("/healthz", summary="Liveness", responses={200: openapi.reply(Liveness, "Alive")})
async def healthz() -> JSONResponse:
    """The process answers."""
    return JSONResponse({"live": True})


@router.get(
    "/readyz",
    summary="Readiness",
    responses={
        200: openapi.reply(Readiness, "Ready"),
        503: openapi.reply(Readiness, "Not ready", openapi.RETRY_AFTER),
    },
)
async def readyz(request: Request) -> JSONResponse:
    """200 when requests are served, 503 when they are not; problems are what serving outlives."""
    context = context_of(request)
    state, is_ready = context.state, context.state == "ready"
    document = {"ready": is_ready, "state": state, "problems": context.hrm.problems()}
    headers = {} if is_ready else {"Retry-After": str(RETRY_AFTER_S)}
    return JSONResponse(document, 200 if is_ready else 503, headers=headers)


@router.get("/v1/status", summary="What runs where", responses={200: openapi.reply(Status, "The state")})
async def status(request: Request) -> JSONResponse:
    """Version, state, GPUs, energy account, backend and load of each plugin, and the telemetry's health."""
    context = context_of(request)
    document = {
        "version": VERSION,
        "state": context.state,
        "profile": context.settings.profile,
        "uptime_s": context.since_ms(context.started_ns) / 1e3,
        "cuda": {"built": native.BUILT_WITH_CUDA, "devices": native.cuda_devices()},
        "prices": context.hrm.prices(),
        "allocation": context.settings.allocation,
        "ledger": _describe_ledger(context.hrm.ledger),
        "memory": context.hrm.memory.status(),
        "plugins": {name: _describe_lane(context, name, lane) for name, lane in context.hrm.status().items()},
        "telemetry": context.hrm.telemetry.status(),
    }
    return JSONResponse(document)


@router.get(
    "/v1/plugins",
    summary="The plugins that are loaded",
    responses={200: openapi.reply(dict[str, PluginInfo], "By name")},
)
async def plugins(request: Request) -> JSONResponse:
    """Each plugin's invariants and default halting rule."""
    context = context_of(request)
    cap = context.settings.step_cap
    return JSONResponse({name: _describe(plugin, cap) for name, plugin in context.hrm.plugins.items()})


def _describe_lane(context: Context, name: str, lane: dict[str, Any]) -> dict[str, Any]:
    """What runs of one plugin, with what HTTP keeps free for its replies."""
    return {**lane, "bound_ms": {**lane["bound_ms"], "reply": context.reply_bound_ms(name)}}


def _describe_ledger(ledger: Ledger) -> dict[str, Any]:
    """The account in ATP, and how many scenes (single requests are scenes too) have some of it locked."""
    balance = ledger.balance
    return {
        "ATP_initial": balance.initial_uatp / 1e6,
        "ATP_available": balance.available_uatp / 1e6,
        "ATP_locked": balance.locked_uatp / 1e6,
        "ADP": balance.adp_uatp / 1e6,
        "energy_ratio": balance.energy_ratio,
        "scenes": ledger.scenes,
    }


def _describe(plugin: IRPPlugin, max_steps_cap: int) -> dict[str, Any]:
    rule = plugin.halting
    return {
        "version": plugin.version,
        "takes": plugin.takes.name,
        "state_kind": plugin.state_kind,
        "profiles": list(plugin.allowed_profiles()),
        "invariants": plugin.invariants._asdict(),
        "halting": {"K": rule.K, "eps": rule.eps, "max_steps": rule.max_steps, "E_scale": rule.E_scale},
        "max_steps_cap": max_steps_cap,
    }
