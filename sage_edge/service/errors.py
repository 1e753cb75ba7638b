"""Which error becomes which status: the only place where sage_edge's errors meet HTTP."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sage_edge import errors
from sage_edge.messages import shown

log = logging.getLogger(__name__)

STATUS: dict[type[errors.SageError], int] = {
    errors.SageError: 500,
    errors.ConfigError: 500,
    errors.EngineError: 500,
    errors.DeviceError: 500,
    errors.PluginError: 500,
    errors.InputError: 422,
    errors.ShapeError: 422,
    errors.ParameterError: 422,
    errors.ProblemError: 422,
    errors.InfeasibleError: 422,
    errors.FrameError: 422,
    errors.FrameTooLargeError: 413,
    errors.BodyTimeoutError: 408,
    errors.MediaTypeError: 415,
    errors.NotAcceptableError: 406,
    errors.UnknownPluginError: 404,
    errors.CapacityError: 429,
    errors.MemoryFullError: 429,
    errors.BudgetError: 429,
    errors.LedgerError: 500,
    errors.SupersededError: 409,
    errors.UnknownRequestError: 404,
    errors.UnauthorizedError: 401,
    errors.RateLimitError: 429,
    errors.DeadlineError: 503,
    errors.BuildingError: 503,
    errors.ClosingError: 503,
    errors.CancelledRequestError: 499,  # nginx's number for a client that has gone; nobody reads it
}

_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}
_LONGEST_MESSAGE = 400
#: uvicorn drops the connection of a defect; said beforehand, so that the caller does not use it again.
_LAST = {"Connection": "close"}
#: Seconds after which a refused request may be sent again.
RETRY_AFTER_S = 1


def error_reply(error: errors.SageError, *, retry_after_s: int = RETRY_AFTER_S) -> JSONResponse:
    """The reply that tells a caller of an error; a plugin's own class counts as the nearest one here."""
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    headers = {"Retry-After": str(retry_after_s)} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(describe_error(error), status, headers=headers)


def describe_error(error: errors.SageError) -> dict[str, Any]:
    """The one shape of every error; of a deadline that was too short with the parts of what decided."""
    body = error_body(error.code, str(error))
    if isinstance(error, errors.DeadlineError) and error.bound_ms:
        body["error"]["bound_ms"] = error.bound_ms
    return body


def error_body(code: str, message: str) -> dict[str, Any]:
    """The one shape of every error. A long message is cut; half a surrogate pair is spelt."""
    cut = message if len(message) <= _LONGEST_MESSAGE else message[:_LONGEST_MESSAGE] + "…"
    return {"error": {"code": code, "message": cut.encode("utf-8", "backslashreplace").decode()}}


def install(app: FastAPI) -> None:
    """Give every error of the application that shape."""

    @app.exception_handler(errors.SageError)
    async def on_sage_error(_: Request, exc: errors.SageError) -> JSONResponse:
        return error_reply(exc)

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(_: Request, exc: RequestValidationError) -> JSONResponse:
        return error_reply(
            errors.ParameterError("; ".join(describe_finding(entry) for entry in exc.errors()))
        )

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, exc: HTTPException) -> JSONResponse:
        code = _HTTP_CODES.get(exc.status_code, "http_error")
        hint = "; GET /docs lists what there is" if exc.status_code == 404 else ""
        message = f"{request.method} {request.scope['path']}: {exc.detail}{hint}"
        return JSONResponse(error_body(code, message), exc.status_code, headers=exc.headers)

    @app.exception_handler(Exception)
    async def on_defect(request: Request, exc: Exception) -> JSONResponse:
        log.error("defect path=%r error=%r", request.scope["path"], exc)
        return JSONResponse(error_body("internal", "an internal error; the log has more"), 500, _LAST)


def describe_finding(entry: Any) -> str:
    """One finding of the validator: the parameter, what was expected, what came."""
    name = ".".join(str(part) for part in entry["loc"] if part not in ("query", "header")) or "body"
    if entry["type"] == "extra_forbidden":
        return f"{name}: unknown parameter"
    expected = entry["msg"].removeprefix("Value error, ").lower().replace("input should be", "expected")
    return f"{name}: {expected}, got {shown(entry['input'])}"
