"""What the steps, the halt, the order of the tiles and the signal to halt by are each worth.

    python -m benchmarks.vision.ablation --config FILE --data DIR --models DIR --checkpoint FILE
        [--twin-config FILE --twin-checkpoint FILE] [--json FILE]

(a) the last step against the first, (b) the early stop against all steps, (c) against as many steps for
every frame, (d) against a feed-forward net, trained on its own, of the same mean compute, (e) signals to halt
by, and to choose tiles by, at the same mean compute. Intervals are 95 %, paired bootstrap over blocks of
frames.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import report
from benchmarks.vision.signals import NAMES, Watched, at_fixed, oracle, picked, stops_at_mean, watch
from engines.vision.bootstrap import by_block, miou_interval
from engines.vision.config import load_recipe
from engines.vision.data import VOID, LabelledFrames, load_split
from engines.vision.halting import compute_saved, halting_steps
from engines.vision.losses import judge
from engines.vision.nets import CELL_PX, GlanceAndRefine, decode, normalise_exposure, per_tile
from engines.vision.train import load_weights
from engines.vision.trajectory import Graphs
from sage_edge.quality import confusion, mean_iou

RANDOM_SEED = 5
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
#: What the tiles to refine are chosen by.
ORDERS = ("gain", "entropy", "random", "raster", "oracle")


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = report.parser(__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="the folder with ONNX files and manifest")
    parser.add_argument("--checkpoint", type=Path, required=True, help="what they were exported from")
    parser.add_argument("--twin-config", type=Path, help="recipe of a feed-forward net of the same compute")
    parser.add_argument("--twin-checkpoint", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = load_recipe(options.config)
    described = json.loads((options.models / "manifest.json").read_text())
    data = load_split(options.data, options.split, recipe.data)
    graphs = Graphs(options.models, recipe.net.limit, threads=options.threads)
    watched = watch(graphs, data, recipe.net.classes, recipe.net.max_steps)
    results = {
        "split": options.split,
        "frames": len(data),
        "seeds": 1,
        **by_halting(watched, described, data.blocks),
        "tiles": by_tiles(load_weights(recipe, options.checkpoint), data, recipe.train.class_weight),
    }
    if options.twin_config:
        twin_recipe = load_recipe(options.twin_config)
        twin = load_weights(twin_recipe, options.twin_checkpoint)
        results["feed_forward"] = against_twin(watched, described, twin, data)
    show(results)
    report.write(options.json, "vision.ablation", results)


def by_halting(watched: Watched, described: dict[str, Any], blocks: Sequence[str]) -> dict[str, Any]:
    """Measure (a), (b), (c) and the signals to halt by."""
    confusions, halting = watched.confusions, described["halting"]
    energies = watched.signals["energy"] / described["E_scale"]
    stops = halting_steps(energies, halting["K"], halting["eps"])
    mean_steps, last = float(stops.mean()), confusions.shape[1] - 1
    chosen, fixed = picked(confusions, stops), at_fixed(confusions, mean_steps)
    rules = {name: stops_at_mean(watched.signals[name], mean_steps) for name in NAMES}
    rules["oracle"] = oracle(confusions, mean_steps)
    rng = np.random.default_rng(RANDOM_SEED)
    rules["random"] = rng.permutation(stops)
    return {
        "mean_steps": mean_steps,
        "compute_saved": compute_saved(described["macs"], mean_steps, last),
        "mIoU": {
            "glance": mean_iou(confusions[:, 0].sum(axis=0)),
            "first": mean_iou(confusions[:, 1].sum(axis=0)),
            "default": mean_iou(chosen.sum(axis=0)),
            "last": mean_iou(confusions[:, -1].sum(axis=0)),
        },
        "a_last_minus_first": lead(confusions[:, -1], confusions[:, 1], blocks),
        "b_default_minus_last": lead(chosen, confusions[:, -1], blocks),
        "c_default_minus_fixed": lead(chosen, fixed, blocks),
        "e_signals_minus_fixed": {
            name: {
                "mean_steps": float(of_rule.mean()),
                **lead(picked(confusions, of_rule), at_fixed(confusions, float(of_rule.mean())), blocks),
            }
            for name, of_rule in rules.items()
        },
    }


def by_tiles(net: GlanceAndRefine, data: LabelledFrames, class_weight: Sequence[float]) -> dict[str, Any]:
    """Measure what refining a share of the tiles gives, by what they are chosen by: mIoU for each share.

    ``of_each_frame`` takes the same number of tiles in every frame; ``of_all_frames`` takes those above one
    threshold for all frames, so that each tile halts by itself. A tile is decoded with its neighbours as they
    were before or after, all of them; mixing both would change a pixel at its rim.
    """
    weight, rng = torch.tensor(class_weight), torch.Generator().manual_seed(RANDOM_SEED)
    scores: dict[str, list[NDArray[np.float32]]] = {name: [] for name in ORDERS}
    before, after = [], []
    for frame, labels in tqdm(zip(data.frames, data.labels, strict=True), "tiles", total=len(data)):
        with torch.no_grad():
            z, context = net.encode(normalise_exposure(to_input(frame)))
            refined = net.refine_all(z, context)
            truth = torch.from_numpy(labels).long()[None]
            urgency = tile_scores(net, z, context, refined, truth, weight, rng)
        for name in ORDERS:
            scores[name].append(urgency[name].numpy())
        before.append(confusion_of_tiles(net, z, labels))
        after.append(confusion_of_tiles(net, refined, labels))
    first, last = np.stack(before), np.stack(after)
    each, pooled = {}, {}
    for name in ORDERS:
        ranks = (-np.stack(scores[name])).argsort(axis=1, kind="stable").argsort(axis=1)
        overall = (-np.stack(scores[name])).argsort(axis=None, kind="stable").argsort().reshape(ranks.shape)
        each[name] = [chosen_miou(first, last, ranks < round(share * ranks.shape[1])) for share in SHARES]
        pooled[name] = [chosen_miou(first, last, overall < round(share * ranks.size)) for share in SHARES]
    return {"shares": SHARES, "of_each_frame": each, "of_all_frames": pooled}


def confusion_of_tiles(net: GlanceAndRefine, z: torch.Tensor, labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Hold the labels of one latent against the truth, [H, W], tile by tile: int64 [T, classes, classes]."""
    side, classes = net.config.tile_cells * CELL_PX, net.config.classes
    answer = decode(z, net.config.logit_px).argmax(1)[0].numpy()
    cut = [
        of_pixels.reshape(of_pixels.shape[0] // side, side, -1, side).swapaxes(1, 2).reshape(-1, side, side)
        for of_pixels in (labels, answer)
    ]
    return np.stack([confusion(truth, said, classes, VOID) for truth, said in zip(*cut, strict=True)])


def chosen_miou(before: NDArray[np.int64], after: NDArray[np.int64], is_refined: NDArray[np.bool_]) -> float:
    """Return the mIoU of all frames when some tiles were refined; [N, T, classes, classes], bool [N, T]."""
    return mean_iou(np.where(is_refined[..., None, None], after, before).sum(axis=(0, 1)))


def tile_scores(
    net: GlanceAndRefine,
    z: torch.Tensor,
    context: torch.Tensor,
    after: torch.Tensor,
    labels: torch.Tensor,
    class_weight: torch.Tensor,
    rng: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Say how urgent each tile is by each rule: float32 [T]."""
    side, logit_px = net.config.tile_cells, net.config.logit_px
    log_odds = decode(z, logit_px).log_softmax(1)
    entropy = -(log_odds.exp() * log_odds).sum(1)
    _, wrong_before = judge(z, labels, class_weight, logit_px)
    _, wrong_after = judge(after, labels, class_weight, logit_px)
    gain = per_tile(net.predict(z, context)[1], side)[0]
    return {
        "gain": gain,
        "entropy": per_tile(entropy[:, None], side * CELL_PX)[0],
        "random": torch.rand(len(gain), generator=rng),
        "raster": -torch.arange(len(gain)).float(),
        "oracle": per_tile(wrong_before - wrong_after, side)[0],
    }


def against_twin(
    watched: Watched, described: dict[str, Any], twin: GlanceAndRefine, data: LabelledFrames
) -> dict[str, Any]:
    """Measure (d): the twin refines every tile once, densely."""
    energies = watched.signals["energy"] / described["E_scale"]
    stops = halting_steps(energies, described["halting"]["K"], described["halting"]["eps"])
    chosen = picked(watched.confusions, stops)
    answers = []
    for frame in tqdm(data.frames, "twin"):
        with torch.no_grad():
            z, context = twin.encode(normalise_exposure(to_input(frame)))
            answers.append(decode(twin.refine_all(z, context), twin.config.logit_px).argmax(1)[0].numpy())
    pairs = zip(data.labels, answers, strict=True)
    theirs = np.stack([confusion(labels, answer, twin.config.classes, VOID) for labels, answer in pairs])
    macs = described["macs"]
    return {
        "mIoU": mean_iou(theirs.sum(axis=0)),
        "MMAC": dense_macs(twin) / 1e6,
        "default_MMAC": (macs["encoder"] + macs["decoder"] + macs["step"] * float(stops.mean())) / 1e6,
        "d_default_minus_twin": lead(chosen, theirs, data.blocks),
    }


def dense_macs(net: GlanceAndRefine) -> int:
    """Count the multiply-accumulates of one glance and one dense refinement; the head is not needed."""
    total = 0

    def count(module: torch.nn.Conv2d, _: Any, out: torch.Tensor) -> None:
        nonlocal total
        total += out.numel() * module.weight[0].numel()

    parts = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
    of_head = set(net.head.modules())
    hooks = [module.register_forward_hook(count) for module in parts if module not in of_head]
    with torch.no_grad():
        net.refine_all(*net.encode(torch.zeros(1, 3, *net.config.size_px)))
    for hook in hooks:
        hook.remove()
    return total


def lead(one: NDArray[Any], other: NDArray[Any], blocks: Sequence[str]) -> dict[str, Any]:
    """Return by how much one mIoU is above another, with its interval."""
    return {
        "points": 100 * (mean_iou(one.sum(axis=0)) - mean_iou(other.sum(axis=0))),
        "interval": [100 * end for end in miou_interval(by_block(one, blocks), by_block(other, blocks))],
    }


def to_input(frame: NDArray[np.uint8]) -> torch.Tensor:
    """Turn uint8 [H, W, 3] into float32 [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255


def show(results: dict[str, Any]) -> None:
    """Print it as tables."""
    print(f"mIoU {results['mIoU']}; {results['mean_steps']:.2f} steps, {results['compute_saved']:.2f}x saved")
    rows = {
        key: results[key] for key in ("a_last_minus_first", "b_default_minus_last", "c_default_minus_fixed")
    }
    rows |= {f"e {name} minus fixed": row for name, row in results["e_signals_minus_fixed"].items()}
    if "feed_forward" in results:
        rows["d_default_minus_twin"] = results["feed_forward"]["d_default_minus_twin"]
    report.table(
        ("", "points", "low", "high"), [(name, row["points"], *row["interval"]) for name, row in rows.items()]
    )
    tiles = results["tiles"]
    for among in ("of_each_frame", "of_all_frames"):
        report.table(
            (f"tiles {among} by", *(f"{share:.0%}" for share in tiles["shares"])),
            [(name, *(f"{100 * value:.2f}" for value in row)) for name, row in tiles[among].items()],
        )


if __name__ == "__main__":
    main()
