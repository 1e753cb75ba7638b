"""Liveness, readiness, what runs where, and which plugins there are."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from sage_edge import native
from sage_edge.config import VERSION
from sage_edge.orchestrator import Ledger, Servable
from sage_edge.service import openapi
from sage_edge.service.context import context_of
from sage_edge.service.errors import RETRY_AFTER_S

router = APIRouter(tags=["status"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Liveness", **openapi.LIVE)
async def healthz() -> dict[str, bool]:
    """The process answers."""
    return {"live": True}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Readiness", **openapi.READY)
async def readyz(request: Request) -> JSONResponse:
    """200 when requests are served, 503 when they are not; problems are what serving outlives."""
    context = context_of(request)
    state, is_ready = context.state, context.state == "ready"
    document = {"ready": is_ready, "state": state, "problems": context.hrm.telemetry.problems()}
    headers = {} if is_ready else {"Retry-After": str(RETRY_AFTER_S)}
    return JSONResponse(document, 200 if is_ready else 503, headers=headers)


@router.get("/v1/status", summary="What runs where", **openapi.STATUS)
async def status(request: Request) -> dict[str, Any]:
    """Version, state, GPUs, energy account, backend and load of each plugin, and the telemetry's health."""
    context = context_of(request)
    return {
        "version": VERSION,
        "state": context.state,
        "profile": context.settings.profile,
        "uptime_s": context.since_ms(context.started_ns) / 1e3,
        "cuda": {"built": native.BUILT_WITH_CUDA, "devices": native.cuda_devices()},
        "prices": context.hrm.prices(),
        "allocation": context.settings.allocation,
        "ledger": _describe_ledger(context.hrm.ledger),
        "plugins": context.hrm.status(),
        "telemetry": context.hrm.telemetry.status(),
    }


@router.get("/v1/plugins", summary="The plugins that are loaded", **openapi.PLUGINS)
async def plugins(request: Request) -> dict[str, Any]:
    """Each plugin's invariants and default halting rule."""
    context = context_of(request)
    cap = context.settings.step_cap
    return {name: _describe(plugin, cap) for name, plugin in context.hrm.plugins.items()}


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


def _describe(plugin: Servable, max_steps_cap: int) -> dict[str, Any]:
    rule = plugin.halting
    return {
        "version": plugin.version,
        "invariants": plugin.invariants._asdict(),
        "halting": {"K": rule.K, "eps": rule.eps, "max_steps": rule.max_steps, "E_scale": rule.E_scale},
        "max_steps_cap": max_steps_cap,
    }
