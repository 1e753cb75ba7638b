"""The FastAPI application over an orchestrator."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI

from sage_edge.clock import Clock, SystemClock
from sage_edge.config import VERSION
from sage_edge.orchestrator import HRM
from sage_edge.service import errors, refine, status, telemetry
from sage_edge.service.context import Context


def create_app(hrm: HRM, clock: Clock | None = None) -> FastAPI:
    """The application. It borrows the orchestrator: whoever opened it closes it.

    Args:
        hrm: A started orchestrator.
        clock: The same clock that the orchestrator was given.
    """
    clock = clock or SystemClock()
    app = FastAPI(
        title="sage_edge",
        version=VERSION,
        description="An anytime inference server: the best answer so far, its trust and its cost.",
        docs_url=None,  # its page loads scripts from outside, and a board may be offline
        redoc_url=None,
        redirect_slashes=False,  # a wrong path is a 404, not a second upload
    )
    app.state.context = Context(
        hrm=hrm,
        settings=hrm.settings,
        clock=clock,
        executor=ThreadPoolExecutor(max(2, hrm.settings.thread_count), thread_name_prefix="codec"),
        started_ns=clock.monotonic_ns(),
    )
    errors.install(app)
    for module in (refine, telemetry, status):
        app.include_router(module.router)
    return app
