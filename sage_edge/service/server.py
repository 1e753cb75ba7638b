"""The process that serves: a socket, uvicorn, and an orderly end."""

from __future__ import annotations

import logging
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from sage_edge.config import Settings
from sage_edge.errors import ConfigError
from sage_edge.memory import return_large_blocks
from sage_edge.orchestrator import open_hrm
from sage_edge.service.app import create_app
from sage_edge.service.context import Context
from sage_edge.service.front import configure
from sage_edge.service.outgoing import bound_unsent
from sage_edge.service.starting import build_missing_engines

log = logging.getLogger(__name__)

#: Connections that may wait to be accepted.
BACKLOG = 2048


class _DrainingServer(uvicorn.Server):
    """uvicorn, which says that it drains and ends the endless streams before it waits for requests."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._context: Context = app.state.context

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal. uvicorn's own way would raise it again at the end, before the telemetry is out."""
        self.force_exit = self.should_exit
        self.should_exit = self._context.is_draining = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info("draining within_s=%g", self._context.settings.drain_s)
        self._context.hrm.telemetry.hub.close()
        await super().shutdown(sockets)


def serve(settings: Settings) -> None:
    """Listen, load the engines (built first where they are missing), and serve until SIGINT or SIGTERM.

    Accepted requests are finished.

    Raises:
        ConfigError: The address cannot be listened on, or a setting is unusable.
        EngineError: An engine file is missing or broken.
    """
    return_large_blocks()
    listener = _listen(settings.host, settings.port)
    if not build_missing_engines(settings, listener):
        log.info("stopped")
        return
    hrm = open_hrm(settings)
    try:
        app = create_app(hrm)
        config = configure(
            app,
            settings,
            hrm.telemetry.metrics.replied,
            backlog=BACKLOG,
            timeout_graceful_shutdown=max(1, int(settings.drain_s)),
        )
        backends = {name: served["backend"] for name, served in hrm.status().items()}
        url = _url(listener, "https" if settings.tls_cert_file else "http")
        log.info("serving url=%s profile=%s backends=%s", url, settings.profile, backends)
        _DrainingServer(config, app).run(sockets=[listener])
    finally:
        hrm.close()
        log.info("stopped")


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that the port is ours before anything slow is loaded; callers wait meanwhile."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        bound_unsent(listener)
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {exc.strerror}; choose another --port or --host"
        ) from exc
    return listener


def _url(listener: socket.socket, scheme: str) -> str:
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
