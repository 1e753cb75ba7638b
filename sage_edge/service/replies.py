"""From a result to the bytes that the caller accepts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from fastapi.responses import JSONResponse, Response

from sage_edge.errors import NotAcceptableError
from sage_edge.inputs import JSON_TYPE, OCTETS_TYPE
from sage_edge.orchestrator import Result
from sage_edge.results import describe, picture_of, stages
from sage_edge.service.bodies import DTYPE_HEADER, SHAPE_HEADER

PNG_TYPE = "image/png"
SSE_TYPE = "text/event-stream"
#: Forms of a whole answer.
WHOLE_TYPES = (JSON_TYPE, PNG_TYPE, OCTETS_TYPE)
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
        NotAcceptableError: A PNG was asked of an answer that is neither a mask nor a picture.
    """
    headers = _headers(result, total_ms)
    if media_type == PNG_TYPE:
        png = picture_of(result.answer)
        if png is None:
            raise NotAcceptableError(f"Accept: expected another type than {PNG_TYPE}, {_no_picture(result)}")
        return Response(png, media_type=PNG_TYPE, headers=headers)
    if media_type == OCTETS_TYPE:
        array = np.ascontiguousarray(result.answer.array)
        headers[SHAPE_HEADER] = ",".join(map(str, array.shape))
        headers[DTYPE_HEADER] = str(array.dtype)
        return Response(array.tobytes(), media_type=OCTETS_TYPE, headers=headers)
    return JSONResponse(describe(result, total_ms), headers=headers)


def _no_picture(result: Result) -> str:
    array = result.answer.array
    return f"since {result.plugin} answered with no mask or picture, but {array.dtype} {list(array.shape)}"


def _headers(result: Result, total_ms: float) -> dict[str, str]:
    run = result.run
    damage = {"Sage-Damage": result.damage} if result.damage else {}
    return damage | {
        "Sage-Request-Id": result.request_id,
        "Sage-Halt-Reason": run.halt_reason or "",
        "Sage-Partial": str(result.is_partial).lower(),
        "Sage-Steps": str(run.step_idx),
        "Sage-E": f"{run.best_E:.6g}",
        "Sage-Trust": "" if result.trust is None else f"{result.trust:.4f}",
        "Sage-ATP-Spent": f"{result.ATP_spent:.6f}",
        "Server-Timing": ", ".join(f"{stage};dur={ms:.3f}" for stage, ms in stages(result, total_ms).items()),
    }


def _weight(text: str) -> float:
    """A weight in [0, 1]; 1 for what is none."""
    try:
        weight = float(text)
    except ValueError:
        return 1.0
    return weight if 0 <= weight <= 1 else 1.0
