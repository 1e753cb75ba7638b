"""What it is worth which tiles are refined, each by itself, at the same mean compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from engines.vision.data import VOID, LabelledFrames
from engines.vision.losses import judge
from engines.vision.nets import CELL_PX, GlanceAndRefine, decode, normalise_exposure, per_tile
from sage_edge.quality import confusion, mean_iou

RANDOM_SEED = 5
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
#: What the tiles to refine are chosen by.
ORDERS = ("gain", "entropy", "random", "raster", "oracle")


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
    return {"of_each_frame": each, "of_all_frames": pooled}


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


def to_input(frame: NDArray[np.uint8]) -> torch.Tensor:
    """Turn uint8 [H, W, 3] into float32 [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
