"""What the steps, the halt, the order of the tiles and the signal to halt by are each worth.

    python -m benchmarks.vision.ablation --config FILE --data DIR --models DIR... --checkpoints FILE...
        [--twin-config FILE --twin-checkpoints FILE...] [--json FILE]

(a) the last step against the first, (b) the early stop against all steps, (c) against as many steps for
every frame, (d) against a feed-forward net, trained on its own, of about the same mean compute, (e) signals
to halt by, and to choose tiles by, at the same mean compute. Several models are one recipe from several
seeds: figures are then means over the seeds. Intervals are 95 %, paired bootstrap over blocks of frames, the
same draw for every seed; they say nothing of how seeds differ: the figures of each stand beside.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import report
from benchmarks.vision.signals import NAMES, Watched, at_fixed, oracle, picked, stops_at_mean, watch
from benchmarks.vision.tiles import RANDOM_SEED, SHARES, by_tiles
from benchmarks.vision.twin import glance_confusions, glance_macs
from engines.vision.bootstrap import by_block, miou_interval
from engines.vision.config import load_recipe
from engines.vision.data import LabelledFrames, load_split
from engines.vision.halting import compute_saved, halting_steps
from engines.vision.nets import GlanceAndRefine
from engines.vision.train import load_weights
from engines.vision.trajectory import Graphs
from sage_edge.quality import mean_iou

Counts = NDArray[Any]


@dataclass(frozen=True)
class Run:
    """What one seed's model did with every frame, and where its manifest's halt stops each: int64 [N]."""

    described: dict[str, Any]
    watched: Watched
    stops: NDArray[np.int64]

    @property
    def mean_steps(self) -> float:
        """Of the default halt."""
        return float(self.stops.mean())

    @property
    def chosen(self) -> Counts:
        """The confusion of every frame where the default halt stops it."""
        return picked(self.watched.confusions, self.stops)

    @property
    def mean_macs(self) -> float:
        """What a frame costs at the default halt, in multiply-adds."""
        macs = self.described["macs"]
        return float(macs["encoder"] + macs["decoder"] + macs["step"] * self.mean_steps)


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = report.parser(__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--models", type=Path, nargs="+", required=True, help="folders with ONNX files and manifest"
    )
    parser.add_argument(
        "--checkpoints", type=Path, nargs="+", required=True, help="what each was exported from"
    )
    parser.add_argument("--twin-config", type=Path, help="recipe of a feed-forward net of the same compute")
    parser.add_argument("--twin-checkpoints", type=Path, nargs="+", help="of as many seeds")
    parser.add_argument("--split", default="val")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    for name in ("checkpoints", "twin_checkpoints"):
        given = getattr(options, name)
        if given is not None and len(given) != len(options.models):
            parser.error(f"--{name.replace('_', '-')}: expected {len(options.models)}, one for each model")
    torch.set_num_threads(options.threads)
    recipe = load_recipe(options.config)
    data = load_split(options.data, options.split, recipe.data)
    runs = [run_of(models, data, options.threads) for models in options.models]
    nets = [load_weights(recipe, checkpoint) for checkpoint in options.checkpoints]
    results = {
        "split": options.split,
        "frames": len(data),
        "seeds": [run.described["seed"] for run in runs],
        **by_halting(runs, data.blocks),
        "tiles": {
            "shares": SHARES,
            **averaged([by_tiles(net, data, recipe.train.class_weight) for net in nets]),
        },
    }
    if options.twin_config:
        twin_recipe = load_recipe(options.twin_config)
        twins = [load_weights(twin_recipe, checkpoint) for checkpoint in options.twin_checkpoints]
        results["feed_forward"] = against_twins(runs, twins, data)
    show(results)
    report.write(options.json, "vision.ablation", results)


def run_of(models: Path, data: LabelledFrames, threads: int) -> Run:
    """Refine every frame by the graphs in a folder, for all steps."""
    described = json.loads((models / "manifest.json").read_text())
    halting = described["halting"]
    graphs = Graphs(models, described["state"]["hi"], threads=threads)
    watched = watch(graphs, data, len(described["classes"]), halting["max_steps"])
    energies = watched.signals["energy"] / described["E_scale"]
    return Run(described, watched, halting_steps(energies, halting["K"], halting["eps"]))


def by_halting(runs: Sequence[Run], blocks: Sequence[str]) -> dict[str, Any]:
    """Measure (a), (b), (c) and the signals to halt by."""
    counts = [run.watched.confusions for run in runs]
    first, last = [of_run[:, 1] for of_run in counts], [of_run[:, -1] for of_run in counts]
    chosen = [run.chosen for run in runs]
    fixed = [at_fixed(run.watched.confusions, run.mean_steps) for run in runs]
    saved = [
        compute_saved(run.described["macs"], run.mean_steps, run.described["halting"]["max_steps"])
        for run in runs
    ]
    levels = {"glance": [of_run[:, 0] for of_run in counts], "first": first, "default": chosen, "last": last}
    rules = [halting_rules(run) for run in runs]
    return {
        "mean_steps": float(np.mean([run.mean_steps for run in runs])),
        "default_MMAC": float(np.mean([run.mean_macs for run in runs])) / 1e6,
        "compute_saved": float(np.mean(saved)),
        "compute_saved_of_seeds": saved,
        "mIoU": {name: float(np.mean(mious(of_level))) for name, of_level in levels.items()},
        "mIoU_of_seeds": {name: mious(of_level) for name, of_level in levels.items()},
        "a_last_minus_first": lead(last, first, blocks),
        "b_default_minus_last": lead(chosen, last, blocks),
        "c_default_minus_fixed": lead(chosen, fixed, blocks),
        "e_signals_minus_fixed": {
            name: against_fixed(runs, [of_run[name] for of_run in rules], blocks) for name in rules[0]
        },
    }


def halting_rules(run: Run) -> dict[str, NDArray[np.int64]]:
    """Say where each signal would stop each frame, at the mean steps of the default halt: int64 [N]."""
    rules = {name: stops_at_mean(run.watched.signals[name], run.mean_steps) for name in NAMES}
    rules["oracle"] = oracle(run.watched.confusions, run.mean_steps)
    rules["random"] = np.random.default_rng(RANDOM_SEED).permutation(run.stops)
    return rules


def against_fixed(
    runs: Sequence[Run], stops: Sequence[NDArray[np.int64]], blocks: Sequence[str]
) -> dict[str, Any]:
    """Hold a rule's stops, int64 [N] for each run, against as many steps for every frame."""
    pairs = [(run.watched.confusions, of_run) for run, of_run in zip(runs, stops, strict=True)]
    chosen = [picked(counts, of_run) for counts, of_run in pairs]
    fixed = [at_fixed(counts, float(of_run.mean())) for counts, of_run in pairs]
    return {"mean_steps": float(np.mean(stops)), **lead(chosen, fixed, blocks)}


def against_twins(
    runs: Sequence[Run], twins: Sequence[GlanceAndRefine], data: LabelledFrames
) -> dict[str, Any]:
    """Measure (d): each twin glances, and that is its answer."""
    theirs = [glance_confusions(twin, data) for twin in twins]
    return {
        "mIoU": float(np.mean(mious(theirs))),
        "mIoU_of_seeds": mious(theirs),
        "MMAC": glance_macs(twins[0]) / 1e6,
        "d_default_minus_twin": lead([run.chosen for run in runs], theirs, data.blocks),
        "d_last_minus_twin": lead([run.watched.confusions[:, -1] for run in runs], theirs, data.blocks),
    }


def mious(counts: Sequence[Counts]) -> list[float]:
    """Return the mIoU over all frames of every seed; [N, classes, classes] each."""
    return [mean_iou(of_seed.sum(axis=0)) for of_seed in counts]


def lead(ones: Sequence[Counts], others: Sequence[Counts], blocks: Sequence[str]) -> dict[str, Any]:
    """Return by how many points one mIoU is above another: mean and its interval, and of each seed."""
    points = [100 * (one - other) for one, other in zip(mious(ones), mious(others), strict=True)]
    stacks = (np.stack([by_block(of_seed, blocks) for of_seed in side]) for side in (ones, others))
    return {
        "points": float(np.mean(points)),
        "interval": [100 * end for end in miou_interval(*stacks)],
        "points_of_seeds": points,
    }


def averaged(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Average tables of numbers, of the same shape, over the seeds."""
    return {
        among: {
            name: np.mean([of_seed[among][name] for of_seed in results], axis=0).tolist() for name in rows
        }
        for among, rows in results[0].items()
    }


def show(results: dict[str, Any]) -> None:
    """Print it as tables."""
    of_levels = ", ".join(f"{name} {100 * value:.2f}" for name, value in results["mIoU"].items())
    print(f"mIoU: {of_levels}; {results['mean_steps']:.2f} steps, {results['compute_saved']:.2f}x saved")
    rows = {
        key: results[key] for key in ("a_last_minus_first", "b_default_minus_last", "c_default_minus_fixed")
    }
    rows |= {f"e {name} minus fixed": row for name, row in results["e_signals_minus_fixed"].items()}
    if "feed_forward" in results:
        rows |= {name: row for name, row in results["feed_forward"].items() if name.startswith("d_")}
    report.table(
        ("", "points", "low", "high", "of each seed"),
        [
            (name, row["points"], *row["interval"], " ".join(f"{p:+.2f}" for p in row["points_of_seeds"]))
            for name, row in rows.items()
        ],
    )
    tiles = results["tiles"]
    for among in ("of_each_frame", "of_all_frames"):
        report.table(
            (f"tiles {among} by", *(f"{share:.0%}" for share in tiles["shares"])),
            [(name, *(f"{100 * value:.2f}" for value in row)) for name, row in tiles[among].items()],
        )


if __name__ == "__main__":
    main()
