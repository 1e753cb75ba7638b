"""Whether an answer's energy tells where it fails, beside the confidences of the softmax."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sage_edge.evaluation.labelled import LabelledFrame
from sage_edge.orchestrator import Result
from sage_edge.plugins.vision import VisionPlugin
from sage_edge.quality import aurc, auroc, calibration_error, confusion, mean_iou

Floats = NDArray[np.float64]

#: A tile has failed when more of its pixels are wrong.
TILE_FAILS_ABOVE = 0.2
#: What ranks frames and tiles: the model's energy, and three confidences of the softmax.
SIGNALS = ("energy", "max_softmax", "entropy", "margin")


class Unit(NamedTuple):
    """A frame or a tile: its confidences by signal, and the share of its pixels that are wrong."""

    confidence: dict[str, float]
    error_rate: float


class TrustProbe:
    """Collects answers and their labels; ``report`` says how well each signal ranks them.

    A frame has failed when its mIoU is below the median of the split, a tile when more than
    TILE_FAILS_ABOVE of its pixels are wrong.
    """

    def __init__(self, plugin: VisionPlugin, void: int | None) -> None:
        self._plugin = plugin
        self._void = void
        self._frames: list[Unit] = []
        self._tiles: list[Unit] = []
        self._mious: list[float] = []
        self._trusts: list[float] = []

    def add(self, labelled: LabelledFrame, result: Result) -> None:
        """Refine the frame again to where its answer came from, and hold it against its labels."""
        model = self._plugin.model
        size = (model.width, model.height)
        labels = np.asarray(Image.fromarray(labelled.labels).resize(size, Image.Resampling.NEAREST))
        counts = np.ones(labels.shape, bool) if self._void is None else labels != self._void
        if not counts.any():
            return
        terms, probabilities = self._answer(labelled, result)
        answer = probabilities.argmax(axis=0)
        maps = confidence_maps(probabilities) | {"wrong": (answer != labels).astype(np.float64)}
        per_tile = {name: tile_means(values, counts, len(terms)) for name, values in maps.items()}
        per_tile["energy"] = -terms
        whole = {name: float(values[counts].mean()) for name, values in maps.items()}
        whole["energy"] = -float(terms.mean())
        self._frames.append(Unit(whole, whole["wrong"]))
        for number in np.flatnonzero(np.isfinite(per_tile["wrong"])):
            here = {name: float(values[number]) for name, values in per_tile.items()}
            self._tiles.append(Unit(here, here["wrong"]))
        self._mious.append(mean_iou(confusion(labels, answer, len(model.classes), self._void)))
        self._trusts.append(result.trust or 0.0)

    def report(self) -> dict[str, Any]:
        """AUROC of telling failures, AURC with the error rate as risk, and calibration errors."""
        mious, trusts = np.array(self._mious), np.array(self._trusts)
        claimed = np.array([frame.confidence["max_softmax"] for frame in self._frames])
        right = 1 - np.array([frame.error_rate for frame in self._frames])
        return {
            "frames": _ranking(self._frames, mious < np.median(mious)),
            "tiles": _ranking(
                self._tiles, np.array([tile.error_rate > TILE_FAILS_ABOVE for tile in self._tiles])
            ),
            "tile_fails_above": TILE_FAILS_ABOVE,
            "calibration_error": {
                "trust_of_frame_mIoU": calibration_error(trusts, mious),
                "max_softmax_of_frame_accuracy": calibration_error(claimed, right),
            },
        }

    def _answer(self, labelled: LabelledFrame, result: Result) -> tuple[Floats, Floats]:
        """The energy of every tile and the probability of every class, [classes, H, W]."""
        plugin = self._plugin
        encoded = plugin.encode([plugin.prepare(labelled.frame)])
        z, terms = encoded.z, encoded.energy_terms
        best_z, best_terms = z, terms
        for _ in range(result.run.step_idx):
            delta, terms = plugin.advance(z, encoded.context, np.full(1, plugin.step_size, np.float32))
            z = np.clip(z + np.float32(plugin.step_size) * delta, plugin.lo, plugin.hi, dtype=np.float32)
            if terms.mean() < best_terms.mean():
                best_z, best_terms = z, terms
        logits = plugin.model.decoder.run({"z": best_z})["logits"][0].astype(np.float64)
        odds = np.exp(logits - logits.max(axis=0))
        return best_terms[0].astype(np.float64), odds / odds.sum(axis=0)


def confidence_maps(probabilities: Floats) -> dict[str, Floats]:
    """The softmax's own confidences of each pixel: its largest, minus its entropy, its lead over the next.

    Args:
        probabilities: float64 [classes, H, W].
    """
    second, first = np.sort(probabilities, axis=0)[-2:]
    return {
        "max_softmax": first,
        "entropy": (probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=0),
        "margin": first - second,
    }


def tile_means(values: Floats, counts: NDArray[np.bool_], tiles: int) -> Floats:
    """Average over the pixels that count of each square tile, in raster order; NaN where none does.

    Args:
        values: float64 [H, W].
        counts: bool [H, W].
        tiles: How many squares the frame is cut into.
    """
    height, width = values.shape
    side = math.isqrt(height * width // tiles)
    cut = (height // side, side, width // side, side)
    total = np.where(counts, values, 0.0).reshape(cut).sum(axis=(1, 3)).ravel()
    pixels = counts.reshape(cut).sum(axis=(1, 3)).ravel()
    means: Floats = np.divide(total, pixels, out=np.full(total.shape, np.nan), where=pixels > 0)
    return means


def _ranking(units: list[Unit], failed: NDArray[np.bool_]) -> dict[str, Any]:
    risk = np.array([unit.error_rate for unit in units])
    report: dict[str, Any] = {"units": len(units), "failed": int(failed.sum())}
    for signal in SIGNALS:
        confidence = np.array([unit.confidence[signal] for unit in units])
        report[signal] = {"AUROC": auroc(-confidence, failed), "AURC": aurc(confidence, risk)}
    return report
