"""Measure a model on ``val``: writes ``metrics.json`` and ``MODEL_CARD.md``, and the manifest's ``metrics``.

``python -m engines.vision.report --config FILE --data DIR --models DIR --checkpoint FILE``
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.vision.bootstrap import by_block, miou_interval
from engines.vision.card import render
from engines.vision.config import load_recipe
from engines.vision.corrupt import corrupt_all
from engines.vision.data import VOID, LabelledFrames, load_split
from engines.vision.fixed_order import fixed_order
from engines.vision.halting import answer_steps, compute_saved, confusion_of, halting_steps
from engines.vision.nets import GlanceAndRefine
from engines.vision.otsu import otsu_segment
from engines.vision.train import load_weights
from engines.vision.trajectory import Graphs, Stepper, Trajectories, follow
from sage_edge.quality import confusion, iou_per_class, mean_iou

HARD_SEED = 2
ORDER_SEED = 3


class Bench:
    """One model on one set of labelled frames."""

    def __init__(
        self, graphs: Graphs, frames: NDArray[np.uint8], labelled: LabelledFrames, steps: int
    ) -> None:
        self.graphs, self.frames, self.steps = graphs, frames, steps
        self.labels, self.blocks = labelled.labels, labelled.blocks

    def follow(self, classes: int, stepper: Stepper | None = None) -> Trajectories:
        """Refine every frame for all steps."""
        return follow(
            self.graphs, self.frames, self.labels, classes=classes, steps=self.steps, stepper=stepper
        )

    def otsu(self, classes: int) -> NDArray[np.int64]:
        """Segment every frame by Otsu's threshold; the confusion of each, int64 [N, classes, classes]."""
        pairs = zip(self.labels, self.frames, strict=True)
        return np.stack([confusion(labels, otsu_segment(frame), classes, VOID) for labels, frame in pairs])


def summary(confusions: NDArray[np.int64], blocks: Sequence[str]) -> dict[str, Any]:
    """Sum up the confusions of all frames: mIoU with its interval, and the IoU of every class."""
    total = confusions.sum(axis=0)
    return {
        "miou": mean_iou(total),
        "interval": miou_interval(by_block(confusions, blocks)),
        "iou_per_class": iou_per_class(total).tolist(),
        "foreground_iou": float(iou_per_class(_foreground(total))[1]),
    }


def _foreground(total: NDArray[np.int64]) -> NDArray[np.int64]:
    """Merge all classes but the first: [classes, classes] -> [2, 2]."""
    edges = [0, 1]
    merged: NDArray[np.int64] = np.add.reduceat(np.add.reduceat(total, edges, axis=0), edges, axis=1)
    return merged


def stops_of(run: Trajectories, described: dict[str, Any]) -> NDArray[np.int64]:
    """Find where the default halt of a manifest stops every run: int64 [N]."""
    halting = described["halting"]
    return halting_steps(run.energies / described["E_scale"], halting["K"], halting["eps"])


def lead(
    one: NDArray[np.int64], other: NDArray[np.int64], blocks: Sequence[str]
) -> tuple[float, tuple[float, float]]:
    """Return by how much one mIoU is above another on the same frames, and the interval of that."""
    interval = miou_interval(by_block(one, blocks), by_block(other, blocks))
    return mean_iou(one.sum(axis=0)) - mean_iou(other.sum(axis=0)), interval


def halted(run: Trajectories, described: dict[str, Any], blocks: Sequence[str]) -> dict[str, Any]:
    """Apply the default halt of a manifest; compare with all steps and with as many for every frame."""
    max_steps, stops = described["halting"]["max_steps"], stops_of(run, described)
    chosen = confusion_of(run, stops)
    mean_steps = float(stops.mean())
    fixed = round(mean_steps)
    over_all, over_all_interval = lead(chosen, run.confusions[:, -1], blocks)
    over_fixed, over_fixed_interval = lead(chosen, run.confusions[:, fixed], blocks)
    return {
        **summary(chosen, blocks),
        "mean_steps": mean_steps,
        "steps_histogram": np.bincount(stops, minlength=max_steps + 1).tolist(),
        "compute_saved": compute_saved(described["macs"], mean_steps, max_steps),
        "minus_all_steps": over_all,
        "minus_all_steps_interval": over_all_interval,
        "fixed_steps": fixed,
        "minus_fixed_steps": over_fixed,
        "minus_fixed_steps_interval": over_fixed_interval,
    }


def trust_error(run: Trajectories, described: dict[str, Any]) -> dict[str, float]:
    """Compare the quality that the trust table promises for the halted answers with what labels say."""
    table, stops = described["trust"], stops_of(run, described)
    at = run.energies[np.arange(len(stops)), answer_steps(run.energies, stops)] / described["E_scale"]
    promised = np.interp(at, table["E_norm"], table["quality"])
    true = np.array([mean_iou(counts) for counts in confusion_of(run, stops)])
    return {
        "mean_promised": float(promised.mean()),
        "mean_true": float(true.mean()),
        "mean_absolute_error": float(abs(promised - true).mean()),
        "correlation": float(np.corrcoef(promised, true)[0, 1]),
    }


def measure(bench: Bench, net: GlanceAndRefine, described: dict[str, Any], has_otsu: bool) -> dict[str, Any]:
    """Measure the model and its rivals on one set of frames."""
    classes, tiles = net.config.classes, described["energy_terms"]
    run = bench.follow(classes)
    orders = {"raster": np.arange(tiles), "random": np.random.default_rng(ORDER_SEED).permutation(tiles)}
    rivals = {name: bench.follow(classes, fixed_order(net, order)) for name, order in orders.items()}
    glance, first, last = (run.confusions[:, k] for k in (0, 1, -1))
    over_glance, over_glance_interval = lead(last, glance, bench.blocks)
    over_first, over_first_interval = lead(last, first, bench.blocks)
    return {
        "frames": len(bench.frames),
        "by_step": [summary(run.confusions[:, k], bench.blocks) for k in range(bench.steps + 1)],
        "energy_by_step": run.energies.mean(axis=0).tolist(),
        "last_minus_glance": over_glance,
        "last_minus_glance_interval": over_glance_interval,
        "last_minus_first": over_first,
        "last_minus_first_interval": over_first_interval,
        "default_halt": halted(run, described, bench.blocks),
        "trust": trust_error(run, described),
        "by_step_in_other_order": {
            name: [mean_iou(rival.confusions[:, k].sum(axis=0)) for k in range(bench.steps + 1)]
            for name, rival in rivals.items()
        },
        **(against_otsu(bench, run, described) if has_otsu else {}),
    }


def against_otsu(bench: Bench, run: Trajectories, described: dict[str, Any]) -> dict[str, Any]:
    """Measure Otsu's threshold on the same frames."""
    otsu = bench.otsu(len(described["classes"]))
    _, interval = lead(confusion_of(run, stops_of(run, described)), otsu, bench.blocks)
    return {"otsu": summary(otsu, bench.blocks), "default_halt_minus_otsu_interval": interval}


def main() -> None:
    """Read the command line, measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the recipe, a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="the folder with val/ and valannot/")
    parser.add_argument("--models", type=Path, required=True, help="the folder with ONNX files and manifest")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="what the ONNX files were exported from"
    )
    args = parser.parse_args()
    recipe = load_recipe(args.config)
    path = args.models / "manifest.json"
    described = json.loads(path.read_text())
    net, graphs = load_weights(recipe, args.checkpoint), Graphs(args.models, recipe.net.limit)
    val = load_split(args.data, "val", recipe.data)
    sets = {"clean": val.frames, "hard": corrupt_all(val.frames, HARD_SEED)}
    benches = {name: Bench(graphs, frames, val, recipe.net.max_steps) for name, frames in sets.items()}
    metrics = {name: measure(bench, net, described, recipe.card.otsu) for name, bench in benches.items()}
    (args.models / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    (args.models / "MODEL_CARD.md").write_text(render(recipe, described, metrics))
    path.write_text(json.dumps({**described, "metrics": headline(metrics)}, indent=2) + "\n")


def headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """Pick the numbers that travel with the model."""
    return {
        name: {
            "miou_by_step": [round(step["miou"], 4) for step in measured["by_step"]],
            "default_halt_miou": round(measured["default_halt"]["miou"], 4),
            "default_halt_mean_steps": round(measured["default_halt"]["mean_steps"], 3),
            "default_halt_compute_saved": round(measured["default_halt"]["compute_saved"], 3),
            **({"otsu_miou": round(measured["otsu"]["miou"], 4)} if "otsu" in measured else {}),
        }
        for name, measured in metrics.items()
    }


if __name__ == "__main__":
    main()
