"""What is asked of a state, of a refinement and of the head. Cells are [B, 1, h, w], pixels [B, H, W]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from engines.vision.config import TrainConfig
from engines.vision.data import VOID
from engines.vision.nets import CELL_PX, GlanceAndRefine, decode, normalise_exposure, per_tile


def per_cell(pixels: Tensor) -> Tensor:
    """Average the pixels of each cell: [B, H, W] -> [B, 1, h, w]."""
    return F.avg_pool2d(pixels[:, None].float(), CELL_PX)


def judge(z: Tensor, labels: Tensor, class_weight: Tensor, logit_px: int) -> tuple[Tensor, Tensor]:
    """Hold a latent against the truth.

    Args:
        z: [B, Z, h, w].
        labels: int64 [B, H, W], VOID where a pixel does not count.
        class_weight: [classes], how much a pixel of each class counts.
        logit_px: Width of what one logit covers.

    Returns:
        The weighted cross-entropy and the weighted error rate of each cell, both [B, 1, h, w]; the rate is 1
        where every pixel is wrong and of the class that counts most.
    """
    logits = decode(z.float(), logit_px)
    loss = F.cross_entropy(logits, labels, weight=class_weight, ignore_index=VOID, reduction="none")
    weight = F.pad(class_weight, (0, VOID + 1 - len(class_weight)))[labels] / class_weight.max()
    return per_cell(loss), per_cell((logits.detach().argmax(1) != labels) * weight)


def tiles_of(cells: Tensor, side: int, chosen: Tensor) -> Tensor:
    """Cut the chosen tiles out of a map: [B, C, h, w], int64 [B, m] -> [B m, C, side, side]."""
    patches = F.unfold(cells, side, stride=side).transpose(1, 2)
    frames = torch.arange(len(cells), device=cells.device)[:, None]
    return patches[frames, chosen].unflatten(2, (-1, side, side)).flatten(0, 1)


def draw_tiles(frames: int, tiles: int, share: float, device: torch.device) -> Tensor:
    """Draw a share of the tiles of every frame, without repeats: int64 [B, m]."""
    count = max(1, round(share * tiles))
    return torch.rand(frames, tiles, device=device).argsort(dim=1)[:, :count]


def disturb(z: Tensor, sigma: float, limit: float) -> Tensor:
    """Add Gaussian noise, of up to 1.5 sigma, to about half of the frames; [B, Z, h, w] in and out."""
    strength = 1.5 * sigma * (2 * torch.rand(z.shape[0], 1, 1, 1, device=z.device) - 1).clamp(min=0)
    return (z + strength * torch.randn_like(z)).clamp(-limit, limit)


def divergence(student: Tensor, teacher: Tensor, classes: int) -> Tensor:
    """Average the divergence of a latent's labels from those of another, which is not pulled at."""
    log_p, log_q = (z[:, :-1].float().unflatten(1, (classes, -1)).log_softmax(1) for z in (student, teacher))
    return F.kl_div(log_p, log_q.detach(), log_target=True, reduction="none").sum(1).mean()


def glance_loss(
    net: GlanceAndRefine, frames: Tensor, labels: Tensor, class_weight: Tensor
) -> dict[str, Tensor]:
    """Ask the glance alone: the scalar ``glance``."""
    z, _ = net.encode(normalise_exposure(frames))
    return {"glance": judge(z, labels, class_weight, net.config.logit_px)[0].mean()}


def training_loss(
    net: GlanceAndRefine, frames: Tensor, labels: Tensor, class_weight: Tensor, config: TrainConfig
) -> dict[str, Tensor]:
    """Glance at every frame, and refine some tiles of each.

    The glance is disturbed in half of the frames before it is refined. The head learns on each tile the
    error rate that the refinement left and its measured drop, and never pulls at the states themselves. The
    glance learns from the labels, and from what the refiner made of it.

    Returns:
        Scalars ``glance``, ``distilled``, ``refined``, ``left`` and ``gain``, to be added up.
    """
    side, logit_px = net.config.tile_cells, net.config.logit_px
    z, context = net.encode(normalise_exposure(frames))
    state = disturb(z.detach(), net.config.noise_sigma, net.config.limit)
    crops = net.cut(state, context)
    chosen = draw_tiles(*crops.shape[:2], config.tile_share, z.device)
    after = net.refiner(crops[torch.arange(len(z), device=z.device)[:, None], chosen].flatten(0, 1))
    truth = F.pixel_unshuffle(labels[:, None].float(), CELL_PX)
    truth = F.pixel_shuffle(tiles_of(truth, side, chosen), CELL_PX)[:, 0].long()
    _, wrong_before = judge(tiles_of(state, side, chosen), truth, class_weight, logit_px)
    refined, wrong_after = judge(after, truth, class_weight, logit_px)
    left, promise = (tiles_of(cells, side, chosen) for cells in net.predict(state, context))
    measured = 100 * per_tile(wrong_before - wrong_after, side)
    divergent = divergence(tiles_of(z, side, chosen), after, net.config.classes)
    return {
        "glance": 0.5 * judge(z, labels, class_weight, logit_px)[0].mean(),
        "distilled": config.distillation * divergent,
        "refined": refined.mean(),
        "left": F.binary_cross_entropy_with_logits(left, wrong_after),
        "gain": 0.1 * F.smooth_l1_loss(per_tile(promise, side), measured),
    }
