"""How good a vision model is on labelled frames, and what its early stop saves."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sage_edge.errors import ConfigError, ParameterError
from sage_edge.evaluation.labelled import Labelled, LabelledFrame
from sage_edge.evaluation.trust import TrustProbe
from sage_edge.orchestrator import HRM, Budget, Result, Ticket
from sage_edge.plugins.vision import VisionPlugin
from sage_edge.quality import confusion, iou_per_class, mean_iou, ranks


def evaluate(hrm: HRM, frames: Labelled, *, void: int | None = None) -> dict[str, Any]:
    """Refine every frame at the default halt, and with the halting rule off at every number of steps.

    Args:
        hrm: An orchestrator that serves ``vision``.
        frames: The split.
        void: The label of pixels that do not count; by default what the model's manifest says.

    Returns:
        A JSON document: mIoU (confusion summed over the split), by class and by drive, mean steps,
        multiply-adds of each graph and of the mean frame, the compute saved against all steps, milliseconds,
        how well the trust of an answer tells its own frame's mIoU, and how well it tells failures, beside
        the confidences of the softmax.
    """
    plugin = vision_of(hrm)
    void = plugin.model.void if void is None else void
    last = plugin.halting.max_steps
    budgets = {f"steps_{k}": Budget(max_steps=k, eps=0.0) for k in range(last + 1)} | {"default": Budget()}
    report: dict[str, Any] = {
        "model": plugin.model.name,
        "model_version": plugin.version,
        "backend": plugin.backend,
        "slots": hrm.settings.slots,
        "frames": len(frames),
        "classes": list(plugin.model.classes),
        "macs": plugin.model.macs,
        "runs": {},
    }
    with tqdm(total=len(frames) * len(budgets), unit="frame", desc="evaluate") as bar:
        for name, budget in budgets.items():
            report["runs"][name] = measure(hrm, frames, budget, void=void, on_frame=bar.update)
    report["trust"] = _trust(hrm, plugin, frames, void)
    full, default = report["runs"][f"steps_{last}"], report["runs"]["default"]
    report["compute_saved"] = full["mean_macs"] / default["mean_macs"]
    report["mIoU_lost"] = full["mIoU"] - default["mIoU"]
    return report


def vision_of(hrm: HRM) -> VisionPlugin:
    """The vision plugin of an orchestrator.

    Raises:
        ConfigError: Another plugin serves under that name.
    """
    plugin = hrm.require("vision")
    if not isinstance(plugin, VisionPlugin):
        raise ConfigError(f"vision: expected the plugin that ships, got {type(plugin).__name__}")
    return plugin


def measure(
    hrm: HRM,
    frames: Labelled,
    budget: Budget,
    *,
    void: int | None = None,
    on_frame: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Refine every frame within one budget.

    Args:
        hrm: An orchestrator that serves ``vision``.
        frames: The split.
        budget: Of each frame.
        void: The label of pixels that do not count; by default what the model's manifest says.
        on_frame: Called after each frame.

    Returns:
        mIoU, by class and by drive, mean steps and multiply-adds, milliseconds, and what trust promised.
    """
    plugin = vision_of(hrm)
    void = plugin.model.void if void is None else void
    classes = len(plugin.model.classes)
    per_frame, steps, trusts, times_ms, names = [], [], [], [], []
    for labelled, result in _refined(hrm, frames, budget):
        per_frame.append(_confusion(labelled, result, classes, void))
        steps.append(result.run.step_idx)
        trusts.append(result.trust or 0.0)
        times_ms.append(result.refine_ms)
        names.append(labelled.name[: plugin.model.drive_letters])
        on_frame()
    total = np.sum(per_frame, axis=0)
    if not total.any():
        raise ParameterError(f"labels: expected pixels that count, got only --void {void}")
    own = np.array([mean_iou(matrix) for matrix in per_frame])
    counted = np.isfinite(own)  # not so a frame that is void throughout
    own, trust = own[counted], np.array(trusts)[counted]
    macs = plugin.model.macs
    return {
        "mIoU": mean_iou(total),
        "IoU": {
            name: iou if np.isfinite(iou) else None  # in no label and no answer
            for name, iou in zip(plugin.model.classes, iou_per_class(total).tolist(), strict=True)
        },
        "mIoU_by_drive": _by_drive(per_frame, names),
        "mean_steps": float(np.mean(steps)),
        "mean_macs": macs["encoder"] + macs["step"] * float(np.mean(steps)) + macs["decoder"],
        "refine_ms_median": float(np.median(times_ms)),
        "trust": {
            "mean": float(trust.mean()),
            "frame_mIoU_mean": float(own.mean()),
            "mean_absolute_error": float(np.abs(trust - own).mean()),
            "spearman": _spearman(trust, own),
        },
    }


def _by_drive(per_frame: Sequence[NDArray[np.int64]], names: Sequence[str]) -> dict[str, float | None]:
    """The mIoU of each drive, its confusions summed; None where everything is void."""
    drives: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros_like(per_frame[0]))
    for matrix, name in zip(per_frame, names, strict=True):
        drives[name] += matrix
    return {name: mean_iou(total) if total.any() else None for name, total in sorted(drives.items())}


def _trust(hrm: HRM, plugin: VisionPlugin, frames: Labelled, void: int | None) -> dict[str, Any]:
    probe = TrustProbe(plugin, void)
    for labelled, result in _refined(hrm, frames, Budget()):
        probe.add(labelled, result)
    return probe.report()


def _confusion(labelled: LabelledFrame, result: Result, classes: int, void: int | None) -> NDArray[np.int64]:
    try:
        return confusion(labelled.labels, result.answer.array.astype(np.uint8), classes, void)
    except ParameterError as exc:
        raise ParameterError(f"{labelled.name}: {exc}; name the label to leave out with --void") from exc


def _refined(hrm: HRM, frames: Labelled, budget: Budget) -> Iterator[tuple[LabelledFrame, Result]]:
    """Every frame with its result, in order, with no more in flight than there are slots."""
    in_flight: deque[tuple[LabelledFrame, Ticket]] = deque()
    for labelled in frames:
        in_flight.append((labelled, hrm.submit("vision", hrm.prepare("vision", labelled.frame), budget)))
        if len(in_flight) >= min(hrm.settings.slots, hrm.settings.queue_size):
            first, ticket = in_flight.popleft()
            yield first, ticket.future.result()
    for first, ticket in in_flight:
        yield first, ticket.future.result()


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Rank correlation; None when one side is constant."""
    both = np.stack([ranks(a), ranks(b)])
    if (np.ptp(both, axis=1) == 0).any():
        return None
    return float(np.atleast_2d(np.corrcoef(both))[0, 1])
