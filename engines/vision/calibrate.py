"""Fit halt and trust on the calibration block, and write the manifest.

``python -m engines.vision.calibrate --config FILE --data DIR --models DIR [--as-chosen-for DIR]``

Nets that were refitted on all frames have none left to choose on: they keep what was chosen for them before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from engines.vision.config import Recipe, load_recipe
from engines.vision.corrupt import corrupt_all
from engines.vision.data import LabelledFrames, load_split
from engines.vision.halting import halting_steps, mean_iou_at
from engines.vision.macs import count_macs
from engines.vision.streams import choose_tolerance
from engines.vision.trajectory import Graphs, Trajectories, follow
from engines.vision.trust import trust_table

CHOSEN = ("E_scale", "halting", "halting_chosen_by", "trust", "streams")
GRAPH_NAMES = ("encoder", "step", "energy", "decoder")
CORRUPTION_SEED = 1
SMALLEST_EPS = 1e-5


def choose_eps(run: Trajectories, scale: float, K: int, max_loss: float) -> float:
    """Choose the largest threshold that costs at most ``max_loss`` of the mIoU that all steps reach."""
    energies = run.energies / scale
    every_step = np.full(len(energies), energies.shape[1] - 1)
    floor = mean_iou_at(run, every_step) - max_loss
    for eps in np.geomspace(1.0, SMALLEST_EPS, 200):
        if mean_iou_at(run, halting_steps(energies, K, eps)) >= floor:
            return float(eps)
    return SMALLEST_EPS


def measured_risk(run: Trajectories, scale: float, recipe: Recipe, eps: float) -> dict[str, Any]:
    """Say what the threshold was allowed to cost, and what it costs, on the frames that it was chosen on."""
    energies = run.energies / scale
    stops = halting_steps(energies, recipe.halt.K, eps)
    every_step = np.full(len(energies), energies.shape[1] - 1)
    return {
        "target_mIoU_loss": recipe.halt.max_loss,
        "mIoU_loss": mean_iou_at(run, every_step) - mean_iou_at(run, stops),
        "mean_steps": float(stops.mean()),
        "runs": len(energies),
    }


def stream_rule(graphs: Graphs, block: LabelledFrames, recipe: Recipe, eps: float) -> dict[str, Any]:
    """Say which tiles of a stream's last answer its next frame may keep; ``eps`` is in units of energy."""
    chosen = choose_tolerance(graphs, block, recipe, eps)
    return {"tile_cells": recipe.net.tile_cells, "tolerance": chosen}


def sha256_of(path: Path) -> str:
    """Return the hash of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def choose(recipe: Recipe, graphs: Graphs, block: LabelledFrames) -> dict[str, Any]:
    """Choose the scale of the energy, the halt, the trust and what a stream keeps.

    Half of the trajectories start from the calibration frames as they are, half from the same frames spoilt.
    """
    net = recipe.net
    frames = np.concatenate((block.frames, corrupt_all(block.frames, CORRUPTION_SEED)))
    labels = np.concatenate((block.labels, block.labels))
    run = follow(graphs, frames, labels, classes=net.classes, steps=net.max_steps)
    scale = float(run.energies[:, 0].mean())
    eps = choose_eps(run, scale, recipe.halt.K, recipe.halt.max_loss)
    return {
        "E_scale": scale,
        "halting": {"K": recipe.halt.K, "eps": eps, "max_steps": net.max_steps},
        "halting_chosen_by": measured_risk(run, scale, recipe, eps),
        "trust": trust_table(run, scale),
        "streams": stream_rule(graphs, block, recipe, eps * scale),
    }


def manifest(
    recipe: Recipe, graphs: Graphs, models: Path, chosen: dict[str, Any], command: str
) -> dict[str, Any]:
    """Describe a model: everything that the service needs to run and to trust it."""
    net = recipe.net
    z, _, energy = graphs.encode(np.zeros((1, recipe.data.height_px, recipe.data.width_px, 3), np.uint8))
    return {
        "format": 1,
        "name": recipe.name,
        "version": recipe.version,
        "task": "semantic_segmentation",
        "classes": list(recipe.data.classes),
        "palette": [list(colour) for colour in recipe.data.palette],
        "void": recipe.data.void,
        "drive_letters": recipe.data.drive_letters,
        "input": {"height": recipe.data.height_px, "width": recipe.data.width_px},
        "context": ["ctx"],
        "state": {
            "shape": list(z.shape[1:]),
            "lo": -net.limit,
            "hi": net.limit,
            "step_size": 1.0,
            "noise_sigma": net.noise_sigma,
        },
        "energy_terms": energy.shape[1],
        "energy_units": "predicted pixel error rate, weighted by class",
        **chosen,
        "macs": {name: count_macs(models / f"{name}.fp32.onnx") for name in GRAPH_NAMES},
        "licence": recipe.licence,
        "data": recipe.data_licence,
        "command": command,
        "seed": recipe.train.seed,
        "files": {path.name: sha256_of(path) for path in sorted(models.glob("*.onnx"))},
    }


def main() -> None:
    """Read the command line and write ``manifest.json`` beside the graphs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the recipe, a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="the folder with train/ and trainannot/")
    parser.add_argument("--models", type=Path, required=True, help="the folder with the ONNX files")
    parser.add_argument("--seed", type=int, help="that the nets were trained from, if not the recipe's")
    parser.add_argument("--as-chosen-for", type=Path, help="the folder of the model before its refit")
    args = parser.parse_args()
    recipe = load_recipe(args.config, args.seed)
    graphs = Graphs(args.models, recipe.net.limit)
    config = f"engines/vision/configs/{args.config.name}"
    seed = "" if args.seed is None else f" --seed {args.seed}"
    train = f"python -m engines.vision.train --config {config} --data DIR{seed}"
    trunk = " --weights TRUNK" if recipe.net.glance == "lite0" else ""
    command = f"{train}{trunk} --out NETS && {train} --head-of NETS/checkpoint.pt --out RUN"
    if args.as_chosen_for:
        earlier = json.loads((args.as_chosen_for / "manifest.json").read_text())
        chosen = {name: earlier[name] for name in CHOSEN} | {"is_refit": True}
        command += f" && {train} --refit-of RUN/checkpoint.pt --out REFIT"
    else:
        chosen = choose(recipe, graphs, load_split(args.data, "calibration", recipe.data))
    described = manifest(recipe, graphs, args.models, chosen, command)
    (args.models / "manifest.json").write_text(json.dumps(described, indent=2) + "\n")


if __name__ == "__main__":
    main()
