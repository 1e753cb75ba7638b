"""Whether the energy tells where an answer fails, beside the softmax, dropout, an ensemble and a fit of all.

    python -m benchmarks.vision.trust --config FILE --data DIR --checkpoints FILE... [--json FILE]

The answer is that of a net that has refined every tile once; a tile has failed when more than a fifth of its
pixels are wrong, a frame when its mIoU is below the split's median. All signals rank the failures of the same
answer. Several checkpoints are one recipe from several seeds: figures are means over them, and their averaged
labels are the ensemble. The fits are logistic functions, fitted to the error rates of the tiles of
the frames kept for calibration. Intervals are 95 %, bootstrap over blocks of frames, of the lead over
max-softmax.

Y. Gal and Z. Ghahramani, "Dropout as a Bayesian approximation", 2016; B. Lakshminarayanan et al., "Simple and
scalable predictive uncertainty estimation using deep ensembles", 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F  # noqa: N812
from tqdm import tqdm

from benchmarks import report
from benchmarks.vision.tiles import to_input
from engines.vision.config import load_recipe
from engines.vision.data import VOID, LabelledFrames, load_split
from engines.vision.nets import GlanceAndRefine, decode, normalise_exposure, per_tile
from engines.vision.train import load_weights
from sage_edge.evaluation.trust import TILE_FAILS_ABOVE, confidence_maps, tile_means
from sage_edge.quality import aurc, auroc, confusion, mean_iou

Floats = NDArray[np.float64]

PASSES = 10
DRAWS = 1000
SEED = 7
RIDGE = 1e-3
#: What each fit reads. ``residual`` is what the step that refined the tile changed, ``next_residual`` what
#: another one would, which costs as much again.
SOFTMAX = ("max_softmax", "entropy", "margin")
FITS = {
    "fit of softmax": SOFTMAX,
    "fit of softmax, energy": (*SOFTMAX, "energy"),
    "fit of softmax, energy, residuals": (*SOFTMAX, "energy", "residual", "next_residual"),
}


@dataclass(frozen=True)
class Ranked:
    """Frames by one net: doubts float64 [N, T] by signal; error rates [N, T], NaN where void; mIoUs [N]."""

    doubts: dict[str, Floats]
    wrong: Floats
    mious: Floats


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = report.parser(__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, nargs="+", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    recipe = load_recipe(options.config)
    nets = [load_weights(recipe, checkpoint) for checkpoint in options.checkpoints]
    kept, data = (load_split(options.data, split, recipe.data) for split in ("calibration", options.split))
    runs = rank(nets, data, has_rivals=True)
    for run, fitted_on in zip(runs, rank(nets, kept, has_rivals=False), strict=True):
        for name, read in FITS.items():
            run.doubts[name] = Fit(fitted_on, read)(run)
    results = {
        "split": options.split,
        "frames": len(data),
        "seeds": len(nets),
        "tiles": ranking(runs, data.blocks, of_frames=False),
        "frames_by_mean": ranking(runs, data.blocks, of_frames=True),
    }
    show(results)
    report.write(options.json, "vision.trust", results)


def rank(nets: Sequence[GlanceAndRefine], data: LabelledFrames, has_rivals: bool) -> list[Ranked]:
    """Let every net answer every frame, and note how much each signal doubts each tile."""
    rows: list[list[tuple[dict[str, Floats], Floats, float]]] = [[] for _ in nets]
    for frame, labels in tqdm(zip(data.frames, data.labels, strict=True), "trust", total=len(data)):
        pixels = normalise_exposure(to_input(frame))
        answers = [answer(net, pixels) for net in nets]
        together = doubts_of_votes([p for p, _ in answers]) if has_rivals and len(nets) > 1 else {}
        for net, (p, doubts), row in zip(nets, answers, rows, strict=True):
            counts, said = labels != VOID, p.argmax(axis=0)
            maps = {name: -values for name, values in confidence_maps(p).items()}
            maps |= {f"ensemble {name}": values for name, values in together.items()}
            if has_rivals and net.config.dropout:
                maps |= {
                    f"dropout {name}": v for name, v in doubts_of_votes(with_dropout(net, pixels)).items()
                }
            tiles = len(doubts["energy"])
            doubts |= {name: tile_means(values, counts, tiles) for name, values in maps.items()}
            wrong = tile_means((said != labels).astype(np.float64), counts, tiles)
            row.append((doubts, wrong, mean_iou(confusion(labels, said, net.config.classes, VOID))))
    return [
        Ranked(
            {name: np.stack([doubts[name] for doubts, _, _ in row]) for name in row[0][0]},
            np.stack([wrong for _, wrong, _ in row]),
            np.array([miou for _, _, miou in row]),
        )
        for row in rows
    ]


def answer(net: GlanceAndRefine, pixels: torch.Tensor) -> tuple[Floats, dict[str, Floats]]:
    """Refine every tile; the odds of every class, [classes, H, W], and the net's own doubts, [T] each."""
    side = net.config.tile_cells
    with torch.no_grad():
        z, context = net.encode(pixels)
        refined = net.refine_all(z, context)
        again = net.refine_all(refined, context)
        moves = {"residual": refined - z, "next_residual": again - refined}
        doubts = {
            name: per_tile(move[:, :-1].square().mean(1, keepdim=True), side).sqrt()
            for name, move in moves.items()
        }
        doubts["energy"] = net.energy(refined, context)
        return odds(net, refined), {name: values[0].double().numpy() for name, values in doubts.items()}


def with_dropout(net: GlanceAndRefine, pixels: torch.Tensor) -> list[Floats]:
    """Answer PASSES times with channels left out as in training: odds [classes, H, W] each."""
    layers = [module for module in net.modules() if isinstance(module, nn.Dropout2d)]
    for layer in layers:
        layer.train()
    with torch.no_grad():
        drawn = [odds(net, net.refine_all(*net.encode(pixels))) for _ in range(PASSES)]
    for layer in layers:
        layer.eval()
    return drawn


def odds(net: GlanceAndRefine, z: torch.Tensor) -> Floats:
    """Return the chance of every class: float64 [classes, H, W]."""
    p: Floats = decode(z, net.config.logit_px).softmax(1)[0].double().numpy()
    return p


def doubts_of_votes(votes: Sequence[Floats]) -> dict[str, Floats]:
    """Average several odds; how unsure their mean is, and how far they differ (their mutual information)."""
    doubts = {name: -values for name, values in confidence_maps(np.mean(votes, axis=0)).items()}
    each = np.mean([-confidence_maps(vote)["entropy"] for vote in votes], axis=0)
    return {**doubts, "disagreement": doubts["entropy"] - each}


class Fit:
    """A logistic function of some signals, fitted to the error rate of the tiles of kept frames."""

    def __init__(self, kept: Ranked, read: Sequence[str]) -> None:
        self.read = read
        counted = np.isfinite(kept.wrong)
        inputs = np.stack([kept.doubts[name][counted] for name in read], axis=1)
        self.mean, self.deviation = inputs.mean(axis=0), inputs.std(axis=0)
        x = torch.from_numpy((inputs - self.mean) / self.deviation)
        y = torch.from_numpy(kept.wrong[counted])
        self.weight = torch.zeros(len(read) + 1, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([self.weight], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimiser.zero_grad()
            logit = x @ self.weight[1:] + self.weight[0]
            value = F.binary_cross_entropy_with_logits(logit, y) + RIDGE * self.weight[1:].square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimiser.step(loss)

    def __call__(self, run: Ranked) -> Floats:
        """Return the predicted error rate of every tile: [N, T]."""
        weight = self.weight.detach().numpy()
        inputs = np.stack([run.doubts[name] for name in self.read], axis=-1)
        logits = (inputs - self.mean) / self.deviation @ weight[1:] + weight[0]
        rates: Floats = 1 / (1 + np.exp(-logits))
        return rates


def ranking(runs: Sequence[Ranked], blocks: Sequence[str], of_frames: bool) -> dict[str, Any]:
    """AUROC and AURC of each signal, means over the seeds, and its lead in AUROC over max-softmax.

    Without failures, or without successes, there is no AUROC, and none of its fields.
    """
    _, block = np.unique(blocks, return_inverse=True)
    members = [np.flatnonzero(block == number) for number in range(block.max() + 1)]
    rng = np.random.default_rng(SEED)
    draws = [
        np.concatenate([members[b] for b in rng.integers(len(members), size=len(members))])
        for _ in range(DRAWS)
    ]
    everything = np.arange(len(blocks))
    drawn = {
        name: np.array([np.mean([told(run, name, draw, of_frames) for run in runs]) for draw in draws])
        for name in runs[0].doubts
    }
    plain = np.array([told(run, "max_softmax", everything, of_frames) for run in runs])
    table: dict[str, dict[str, Any]] = {}
    for name in runs[0].doubts:
        of_seeds = np.array([told(run, name, everything, of_frames) for run in runs])
        risks = [units(run, name, everything, of_frames) for run in runs]
        table[name] = {
            "AURC": float(np.mean([aurc(-doubt, risk) for doubt, risk, _ in risks])),
        }
        if np.isfinite(of_seeds).all():
            table[name] |= {
                "AUROC": float(of_seeds.mean()),
                "AUROC_of_seeds": of_seeds.tolist(),
                "lead": float((of_seeds - plain).mean()),
                "lead_interval": np.nanquantile(drawn[name] - drawn["max_softmax"], [0.025, 0.975]).tolist(),
            }
    return table


def told(run: Ranked, name: str, frames: NDArray[np.int64], of_frames: bool) -> float:
    """AUROC of one signal over some frames, which may be there several times; NaN where nothing failed."""
    doubt, _, failed = units(run, name, frames, of_frames)
    value = auroc(doubt, failed)
    return np.nan if value is None else value


def units(
    run: Ranked, name: str, frames: NDArray[np.int64], of_frames: bool
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Of each frame or each tile: how much it is doubted, its share of wrong pixels, and if it failed."""
    doubts, wrong = run.doubts[name][frames], run.wrong[frames]
    if of_frames:
        failed = run.mious[frames] < np.median(run.mious)
        return np.nanmean(doubts, axis=1), np.nanmean(wrong, axis=1), failed
    counted = np.isfinite(wrong)
    return doubts[counted], wrong[counted], wrong[counted] > TILE_FAILS_ABOVE


def show(results: dict[str, Any]) -> None:
    """Print it as tables."""
    for among in ("tiles", "frames_by_mean"):
        report.table(
            (among, "AURC", "AUROC", "lead", "low", "high"),
            [
                (name, *(f"{v:.4f}" for v in (row["AURC"], row["AUROC"], row["lead"], *row["lead_interval"])))
                for name, row in results[among].items()
                if "AUROC" in row
            ],
        )


if __name__ == "__main__":
    main()
