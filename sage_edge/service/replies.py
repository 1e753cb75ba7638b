"""From a result to the bytes that the caller accepts."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi.responses import JSONResponse, Response

from sage_edge.errors import NotAcceptableError
from sage_edge.frames import mask_png
from sage_edge.irp import Answer
from sage_edge.orchestrator import Result
from sage_edge.service.bodies import DTYPE_HEADER, JSON_TYPE, SHAPE_HEADER, TENSOR_TYPE

PNG_TYPE = "image/png"
SSE_TYPE = "text/event-stream"
#: Forms of a whole answer.
WHOLE_TYPES = (JSON_TYPE, PNG_TYPE, TENSOR_TYPE)
OFFERED = (*WHOLE_TYPES, SSE_TYPE)


def choose_type(accept: str, types: Sequence[str] = OFFERED) -> str:
    """The offered media type that an Accept header prefers; JSON when it is empty or does not care.

    The most specific range that names a type gives its weight (RFC 9110, section 12.5.1); of two types
    with the same weight the one that is named first wins.

    Raises:
        NotAcceptableError: It takes none of them.
    """
    wishes: dict[str, tuple[float, int]] = {}
    for order, entry in enumerate((accept or "*/*").split(",")):
        name, *parameters = [part.strip().lower() for part in entry.split(";")]
        weight = next((_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        wishes.setdefault(name, (weight, -order))

    def wish(offered: str) -> tuple[float, int]:
        ranges = (offered, f"{offered.partition('/')[0]}/*", "*/*")
        return next((wishes[name] for name in ranges if name in wishes), (0.0, 0))

    best = max(types, key=wish)
    if wish(best)[0] <= 0:
        raise NotAcceptableError(f"Accept: expected one of {', '.join(types)}, got {accept!r}")
    return best


def reply(result: Result, media_type: str, total_ms: float) -> Response:
    """The answer in one of the offered types, with its trust and cost in the headers of each.

    Raises:
        NotAcceptableError: A PNG was asked of an answer that is no mask.
    """
    headers = _headers(result, total_ms)
    if media_type == PNG_TYPE:
        return Response(_png(result.answer), media_type=PNG_TYPE, headers=headers)
    if media_type == TENSOR_TYPE:
        array = np.ascontiguousarray(result.answer.array)
        headers[SHAPE_HEADER] = ",".join(map(str, array.shape))
        headers[DTYPE_HEADER] = str(array.dtype)
        return Response(array.tobytes(), media_type=TENSOR_TYPE, headers=headers)
    return JSONResponse(describe(result, total_ms), headers=headers)


def describe(result: Result, total_ms: float) -> dict[str, Any]:
    """The JSON answer. Energies that are not finite are null."""
    run = result.run
    return {
        "request_id": result.request_id,
        "plugin": result.plugin,
        "backend": result.backend,
        "halt_reason": run.halt_reason,
        "is_partial": result.is_partial,
        "steps": run.step_idx,
        "answer_step": run.best_step,
        "E": finite(run.best_E),
        "E_norm": finite(run.best_E / result.E_scale),
        "E0": finite(run.E0),
        "trust": result.trust,
        "monotonicity_ratio": run.monotonicity_ratio,
        "ATP_spent": result.ATP_spent,
        "branches": result.branches,
        "branch_id": run.branch,
        "rewinds": run.rewinds,
        "run_id": run.run_id,
        "scene_id": result.scene_id,
        "time_ms": _stages(result, total_ms),
        "answer": _describe_answer(result.answer),
    }


def _png(answer: Answer) -> bytes:
    if not answer.palette:
        raise NotAcceptableError("Accept: this plugin's answer is no mask and has no PNG form")
    return mask_png(answer.array, answer.palette)


def _describe_answer(answer: Answer) -> dict[str, Any]:
    array = answer.array
    described: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if answer.palette:
        shares = np.bincount(array.ravel(), minlength=len(answer.classes)) / array.size
        described["classes"] = dict(zip(answer.classes, shares.round(6).tolist(), strict=True))
        described["png_base64"] = base64.b64encode(_png(answer)).decode()
    else:
        described["base64"] = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return described | dict(answer.details)


def _headers(result: Result, total_ms: float) -> dict[str, str]:
    run = result.run
    return {
        "Sage-Request-Id": result.request_id,
        "Sage-Halt-Reason": run.halt_reason or "",
        "Sage-Partial": str(result.is_partial).lower(),
        "Sage-Steps": str(run.step_idx),
        "Sage-E": f"{run.best_E:.6g}",
        "Sage-Trust": "" if result.trust is None else f"{result.trust:.4f}",
        "Sage-ATP-Spent": f"{result.ATP_spent:.6f}",
        "Server-Timing": ", ".join(
            f"{stage};dur={ms:.3f}" for stage, ms in _stages(result, total_ms).items()
        ),
    }


def _stages(result: Result, total_ms: float) -> dict[str, float]:
    return {"queue": result.queue_ms, "refine": result.refine_ms, "total": total_ms}


def _weight(text: str) -> float:
    """A weight in [0, 1]; 1 for what is none."""
    try:
        weight = float(text)
    except ValueError:
        return 1.0
    return weight if 0 <= weight <= 1 else 1.0


def finite(value: float) -> float | None:
    """A number that JSON has; None for another."""
    return value if math.isfinite(value) else None
