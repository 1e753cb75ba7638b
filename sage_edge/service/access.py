"""Who may come in, how often, and what each reply's status was: in front of all routes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sage_edge.clock import Clock
from sage_edge.config import Settings
from sage_edge.errors import RateLimitError, UnauthorizedError
from sage_edge.keys import Keyring, load_keys
from sage_edge.service.errors import error_reply
from sage_edge.telemetry import Metrics

#: What tells nothing but that the service is there and how it is called.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
OPEN_PREFIX = "/static-offline-docs/"


class RateLimit:
    """A bucket of tokens for each caller: ``rate_per_s`` flow in, ``burst`` are kept, a request takes one.

    Threads: one (the event loop's).
    """

    def __init__(self, rate_per_s: float, burst: int, clock: Clock) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, tuple[float, int]] = {}

    def wait_s(self, caller: str) -> float:
        """Take a token; 0 when there was one, else the seconds until there is."""
        now_ns = self._clock.monotonic_ns()
        tokens, since_ns = self._buckets.get(caller, (float(self._burst), now_ns))
        tokens = min(self._burst, tokens + (now_ns - since_ns) / 1e9 * self._rate_per_s)
        is_there = tokens >= 1
        self._buckets[caller] = (tokens - is_there, now_ns)
        return 0.0 if is_there else (1 - tokens) / self._rate_per_s


class Gate:
    """Lets callers with a key through, as often as they may, and counts every reply.

    Threads: one (the event loop's).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keyring: Keyring | None,
        limit: RateLimit | None,
        is_open: Callable[[str], bool],
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._keyring = keyring
        self._limit = limit
        self._is_open = is_open
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.replied(message["status"])
            await send(message)

        try:
            self._admit(scope)
        except UnauthorizedError as exc:
            await error_reply(exc)(scope, receive, counted)
        except RateLimitError as exc:
            await error_reply(exc, retry_after_s=math.ceil(exc.wait_s))(scope, receive, counted)
        else:
            await self._app(scope, receive, counted)

    def _admit(self, scope: Scope) -> None:
        """Raises UnauthorizedError or RateLimitError unless the caller may come in."""
        if self._keyring is None or self._is_open(scope["path"]):
            return
        key = _presented(Headers(scope=scope))
        if key is None:
            raise UnauthorizedError(
                "expected a key as `Authorization: Bearer KEY` or `X-API-Key: KEY`, got none"
            )
        caller = self._keyring.name_of(key)
        if caller is None:
            raise UnauthorizedError("the key is not known here; `sage-edge keys add NAME` makes one")
        if self._limit and (wait_s := self._limit.wait_s(caller)) > 0:
            raise RateLimitError(f"{caller}: too many requests; try again in {wait_s:.2g} s", wait_s)
        scope.setdefault("state", {})["key"] = caller


def install(app: FastAPI, settings: Settings, metrics: Metrics, clock: Clock) -> None:
    """Put the gate in front of an application, as the settings want it.

    Raises:
        ConfigError: The file of keys cannot be used.
    """
    limit = RateLimit(settings.key_rate_per_s, settings.key_burst, clock) if settings.key_rate_per_s else None
    open_paths = OPEN_PATHS | ({"/metrics"} if settings.open_metrics else set())
    app.add_middleware(
        Gate,
        keyring=load_keys(Path(settings.api_keys_file)) if settings.api_keys_file else None,
        limit=limit,
        is_open=lambda path: path in open_paths or path.startswith(OPEN_PREFIX),
        metrics=metrics,
    )
    if settings.cors_origins:  # in front of the gate: a browser asks first, and without a key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["*"],
        )


def key_of(scope: Scope) -> str:
    """The name of the key that a request came with; empty where none is asked for."""
    name: str = scope.get("state", {}).get("key", "")
    return name


def caller_of(scope: Scope) -> str:
    """Who sends a request: the name of a key, or an address where none is asked for."""
    return key_of(scope) or str((scope.get("client") or ("",))[0])


def _presented(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")
