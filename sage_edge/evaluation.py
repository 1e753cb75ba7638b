"""How good a vision model is on labelled frames, and what its early stop saves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from sage_edge.errors import ConfigError, FrameError, InputError, ParameterError, ShapeError
from sage_edge.frames import decode_image
from sage_edge.orchestrator import HRM, Budget, Result, Ticket
from sage_edge.plugins.vision import VisionPlugin
from sage_edge.quality import confusion, iou_per_class, mean_iou

_IMAGE_SUFFIXES = (".webp", ".png", ".jpg", ".jpeg")
_LARGEST_PIXELS = 1 << 28


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """A frame and its labels: uint8 [H, W, 3] and integers [H, W]."""

    name: str
    frame: NDArray[np.uint8]
    labels: NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A split in the layout ``<split>/NAME.*`` beside ``<split>annot/NAME.png``."""

    images: tuple[Path, ...]
    labels: Path

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[LabelledFrame]:
        for path in self.images:
            yield _read(path, self.labels / f"{path.stem}.png")


def _read(path: Path, labels_path: Path) -> LabelledFrame:
    """Raises InputError naming the file that cannot be used."""
    try:
        frame = decode_image(path.read_bytes(), _LARGEST_PIXELS)
    except InputError as exc:
        raise type(exc)(f"{path}: {exc}") from exc
    try:
        with Image.open(labels_path) as image:
            labels = np.asarray(image)
    except (UnidentifiedImageError, SyntaxError, ValueError) as exc:
        raise FrameError(f"{labels_path}: the image is broken: {exc}") from exc
    if labels.shape != frame.shape[:2] or not np.issubdtype(labels.dtype, np.integer):
        raise ShapeError(
            f"{labels_path}: expected integer labels {list(frame.shape[:2])} like its frame, "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    return LabelledFrame(path.stem, frame, labels)


def find_labelled(data: Path, split: str) -> Labelled:
    """The frames of a split.

    Raises:
        ConfigError: There are none, or a frame has no labels.
    """
    images = tuple(sorted(p for p in (data / split).glob("*") if p.suffix.lower() in _IMAGE_SUFFIXES))
    if not images:
        raise ConfigError(f"--data: expected images in {data / split}, found none")
    labels = data / f"{split}annot"
    missing = [path.stem for path in images if not (labels / f"{path.stem}.png").is_file()]
    if missing:
        raise ConfigError(f"--data: {len(missing)} frames have no PNG in {labels}, the first is {missing[0]}")
    return Labelled(images, labels)


def evaluate(hrm: HRM, frames: Labelled, *, void: int | None = None) -> dict[str, Any]:
    """Refine every frame at the default halt, and with the halting rule off at every number of steps.

    Args:
        hrm: An orchestrator that serves ``vision``.
        frames: The split.
        void: The label of pixels that do not count.

    Returns:
        A JSON document: mIoU (confusion summed over the split), IoU by class, mean steps, multiply-adds
        of each graph and of the mean frame, the compute saved against all steps, milliseconds, and how
        well the trust of an answer tells its own frame's mIoU.
    """
    plugin = hrm.require("vision")
    if not isinstance(plugin, VisionPlugin):
        raise ConfigError(f"vision: expected the plugin that ships, got {type(plugin).__name__}")
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
            report["runs"][name] = _run(hrm, plugin, frames, budget, void, bar)
    full, default = report["runs"][f"steps_{last}"], report["runs"]["default"]
    report["compute_saved"] = full["mean_macs"] / default["mean_macs"]
    report["mIoU_lost"] = full["mIoU"] - default["mIoU"]
    return report


def _run(
    hrm: HRM, plugin: VisionPlugin, frames: Labelled, budget: Budget, void: int | None, bar: tqdm[Any]
) -> dict[str, Any]:
    classes = len(plugin.model.classes)
    per_frame, steps, trusts, times_ms = [], [], [], []
    for labelled, result in _refined(hrm, frames, budget):
        per_frame.append(_confusion(labelled, result, classes, void))
        steps.append(result.run.step_idx)
        trusts.append(result.trust or 0.0)
        times_ms.append(result.refine_ms)
        bar.update()
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
    ranks = np.stack([_ranks(a), _ranks(b)])
    if (np.ptp(ranks, axis=1) == 0).any():
        return None
    return float(np.atleast_2d(np.corrcoef(ranks))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks with ties shared."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: NDArray[np.int64] = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks
