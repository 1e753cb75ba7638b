"""Building engines at the start: the socket answers meanwhile, ``/readyz`` with the progress."""

from __future__ import annotations

import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from sage_edge.clock import SystemClock
from sage_edge.config import Settings
from sage_edge.errors import BuildingError, EngineError
from sage_edge.irp import Recipe
from sage_edge.plugins import wanted_recipes
from sage_edge.runtime import open_backend
from sage_edge.runtime.building import BuildState, PlanBuilder, Progress
from sage_edge.runtime.plans import REMEDY
from sage_edge.service.errors import RETRY_AFTER_S, error_reply
from sage_edge.service.front import configure

log = logging.getLogger(__name__)

STATE = "building_engine"


def build_missing_engines(settings: Settings, listener: socket.socket) -> bool:
    """Build the plans that were never built; a backend that opens recipes as they are has none.

    Plugins without networks do not ask for a backend.

    Returns:
        Whether to go on and serve: False when a signal ended the build.

    Raises:
        ConfigError: A setting is unusable.
        EngineError: A plan is stale, foreign or damaged, cannot be built, or the backend is not here.
    """
    recipes = wanted_recipes(settings)
    builder = open_backend(settings).builder if recipes else None
    return builder is None or build_while_answering(builder, recipes, listener, settings)


def build_while_answering(
    builder: PlanBuilder, recipes: list[Recipe], listener: socket.socket, settings: Settings
) -> bool:
    """Build what is missing and answer on the listener, by TLS where it is set, until that is done.

    Returns:
        Whether it was done: False when a signal ended it.

    Raises:
        EngineError: A plan is stale, foreign or damaged, or cannot be built.
    """
    verdicts = builder.verdicts(recipes)
    for name, (state, why) in verdicts.items():
        if state not in ("ready", "missing"):
            raise EngineError(f"{name}: {state} plan: {why}; {REMEDY}")
    missing = [name for name, verdict in verdicts.items() if verdict.state == "missing"]
    if not missing:
        return True
    log.info("building engines count=%d dir=%s", len(missing), builder.store.folder)
    progress = BuildState(SystemClock())
    server = _StartingServer(progress, settings)
    with ThreadPoolExecutor(1, thread_name_prefix="build") as background, listener.dup() as answering:
        work = background.submit(builder.build, recipes, progress)
        work.add_done_callback(lambda _: server.stop())
        server.run(sockets=[answering])  # uvicorn closes what it is given
        if server.was_interrupted:
            progress.cancel()
            return False
    log.info("built engines count=%d in_s=%.0f", len(work.result()), progress.snapshot().elapsed_s)
    return True


def create_starting_app(state: BuildState) -> FastAPI:
    """What is served while engines are built: alive, not ready, and every other route refused."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz() -> dict[str, bool]:
        return {"live": True}

    @app.api_route("/readyz", methods=["GET", "HEAD"])
    async def readyz() -> JSONResponse:
        return JSONResponse(readiness(state.snapshot()), 503, headers={"Retry-After": str(RETRY_AFTER_S)})

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
    async def refused(request: Request) -> JSONResponse:
        return error_reply(BuildingError(f"engines are being built: {state.snapshot().describe()}"))

    return app


def readiness(progress: Progress) -> dict[str, Any]:
    """What ``/readyz`` says."""
    return {"ready": False, "state": STATE, "progress": progress._asdict()}


class _StartingServer(uvicorn.Server):
    """uvicorn, ended by a signal or by the end of the build."""

    def __init__(self, state: BuildState, settings: Settings) -> None:
        super().__init__(
            configure(
                create_starting_app(state),
                settings,
                headers=[("Connection", "close")],  # the next request goes to the service itself
                timeout_graceful_shutdown=1,
            )
        )
        self.was_interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal. uvicorn's own way would raise it again at the end."""
        self.was_interrupted = self.should_exit = True

    def stop(self) -> None:
        """End it from any thread."""
        self.should_exit = True
