"""A result as the JSON document and as the picture that callers get."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np

from sage_edge.errors import PluginError
from sage_edge.frames import mask_png, picture_png
from sage_edge.irp import Answer
from sage_edge.orchestrator import Result


def describe(result: Result, total_ms: float, *, with_content: bool = True) -> dict[str, Any]:
    """The JSON answer. Energies that are not finite are null.

    Args:
        result: What was refined.
        total_ms: From the request's arrival to now.
        with_content: Whether the answer's bytes are in it, in base64.

    Raises:
        PluginError: The plugin says something of its answer that JSON has no word for.
    """
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
        "damage": result.damage or None,
        "monotonicity_ratio": run.monotonicity_ratio,
        "ATP_spent": result.ATP_spent,
        "branches": result.branches,
        "branch_id": run.branch,
        "rewinds": run.rewinds,
        "run_id": run.run_id,
        "scene_id": result.scene_id,
        "time_ms": stages(result, total_ms),
        "answer": _describe_answer(result.answer, with_content) | _details_of(result),
    }


def picture_of(answer: Answer) -> bytes | None:
    """The answer as a PNG: a mask indexed by its palette, a picture in grey or RGB; None for any other."""
    array = answer.array
    if answer.palette:
        return mask_png(array, answer.palette)
    is_grey, is_rgb = array.ndim == 2, array.ndim == 3 and array.shape[2:] == (3,)
    if array.dtype != np.uint8 or not array.size or not (is_grey or is_rgb):
        return None
    return picture_png(array)


def stages(result: Result, total_ms: float) -> dict[str, float]:
    """Milliseconds by stage: waiting for a slot, refining, and all from the arrival."""
    return {"queue": result.queue_ms, "refine": result.refine_ms, "total": total_ms}


def finite(value: float) -> float | None:
    """A number that JSON has; None for another."""
    return value if math.isfinite(value) else None


def _describe_answer(answer: Answer, with_content: bool) -> dict[str, Any]:
    array = answer.array
    described: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if answer.palette:
        shares = np.bincount(array.ravel(), minlength=len(answer.classes)) / array.size
        described["classes"] = dict(zip(answer.classes, shares.round(6).tolist(), strict=True))
    if with_content:
        png = picture_of(answer)
        name, content = (
            ("base64", np.ascontiguousarray(array).tobytes()) if png is None else ("png_base64", png)
        )
        described[name] = base64.b64encode(content).decode()
    return described


def _details_of(result: Result) -> dict[str, Any]:
    """What the plugin says of its answer; raises PluginError where JSON has no word for it."""
    details = dict(result.answer.details)
    try:
        json.dumps(details, allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise PluginError(f"{result.plugin}.decode: details: expected what JSON has: {exc}") from exc
    return details
