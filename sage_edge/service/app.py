"""The FastAPI application over an orchestrator."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from sage_edge.clock import Clock, SystemClock
from sage_edge.config import VERSION
from sage_edge.orchestrator import HRM
from sage_edge.service import access, answers, errors, openapi, quality, refine, scenes, status, telemetry
from sage_edge.service.arrivals import Arrivals
from sage_edge.service.context import Context
from sage_edge.service.head import HeadOfGet
from sage_edge.service.outgoing import Outgoing


def create_app(hrm: HRM, clock: Clock | None = None) -> FastAPI:
    """The application. It borrows the orchestrator: whoever opened it closes it.

    Args:
        hrm: A started orchestrator.
        clock: The same clock that the orchestrator was given.
    """
    clock = clock or SystemClock()
    app = FastAPIOffline(  # with the scripts of /docs, which a board that is offline cannot fetch
        title="sage_edge",
        version=VERSION,
        description="An anytime inference server: the best answer so far, its trust and its cost.",
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their functions
        redirect_slashes=False,  # a wrong path is a 404, not a second upload
    )
    app.state.context = Context(
        hrm=hrm,
        settings=hrm.settings,
        clock=clock,
        started_ns=clock.monotonic_ns(),
        arrivals=Arrivals(clock),
    )
    errors.install(app)
    app.add_middleware(HeadOfGet)
    app.add_middleware(Outgoing, room=hrm.memory["replies"])
    access.install(app, hrm.settings, hrm.telemetry.metrics, clock)
    for module in (refine, answers, scenes, quality, telemetry, status):
        app.include_router(module.router)
    _describe_inputs(app, hrm)
    return app


def _describe_inputs(app: FastAPI, hrm: HRM) -> None:
    """Put what the loaded plugins take into /openapi.json, when it is asked for first."""
    make = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            openapi.complete(make(), [plugin.takes for plugin in hrm.plugins.values()])
        return make()

    app.openapi = described  # type: ignore[method-assign]
