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


def overlap_loss(z: Tensor, labels: Tensor, logit_px: int) -> Tensor:
    """One minus the intersection over union of each class that is there, averaged: the Lovasz extension.

    M. Berman, A. R. Triki and M. Blaschko, "The Lovasz-Softmax loss", 2018. Of each cell one logit per class
    and one of its pixels, the same everywhere, are drawn.

    Args:
        z: [B, Z, h, w].
        labels: int64 [B, H, W], VOID where a pixel does not count.
        logit_px: Width of what one logit covers.
    """
    side = CELL_PX // logit_px
    row, column, row_px, column_px = (int(torch.randint(n, ())) for n in (side, side, logit_px, logit_px))
    logits = z[:, :-1].float().unflatten(1, (-1, side * side))[:, :, row * side + column]
    drawn = labels[:, row * logit_px + row_px :: CELL_PX, column * logit_px + column_px :: CELL_PX]
    counted = drawn != VOID
    p = logits.softmax(1).transpose(0, 1)[:, counted]
    is_class = F.one_hot(drawn[counted], len(p)).T.float()
    errors, order = (is_class - p).abs().sort(dim=1, descending=True)
    found = is_class.gather(1, order)
    pixels = found.sum(1, keepdim=True)
    missed = 1 - (pixels - found.cumsum(1)) / (pixels + (1 - found).cumsum(1))
    each = (errors * missed.diff(dim=1, prepend=missed.new_zeros(len(missed), 1))).sum(1)
    return each[pixels[:, 0] > 0].sum() / (pixels > 0).sum().clamp(min=1)


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
    net: GlanceAndRefine, frames: Tensor, labels: Tensor, class_weight: Tensor, config: TrainConfig
) -> dict[str, Tensor]:
    """Ask the glance alone: the scalars ``glance`` and ``glance_overlap``."""
    z, _ = net.guess(normalise_exposure(frames))
    return {
        "glance": judge(z, labels, class_weight, net.config.logit_px)[0].mean(),
        "glance_overlap": config.overlap * overlap_loss(z, labels, net.config.logit_px),
    }


def training_loss(
    net: GlanceAndRefine, frames: Tensor, labels: Tensor, class_weight: Tensor, config: TrainConfig
) -> dict[str, Tensor]:
    """Glance at every frame, and refine some tiles of each.

    The glance is disturbed in half of the frames before it is refined. The head learns on each tile, from
    the state before, the error rate that the refinement left and its measured drop, and from the state
    after, the error rate that it has; it never pulls at the states themselves. The glance learns from the
    labels, and from what the refiner made of it.

    Returns:
        Scalars ``glance``, ``distilled``, ``refined``, their two overlaps, ``left`` and ``gain``, to be
        added up.
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
    later, wrong_later = after.detach(), wrong_after
    if net.head.is_of_labels:  # which has to see that noise came over a refined tile
        later = disturb(later, net.config.noise_sigma, net.config.limit)
        _, wrong_later = judge(later, truth, class_weight, logit_px)
    left_later, _ = net.predict(later, tiles_of(context, side, chosen))
    measured = 100 * per_tile(wrong_before - wrong_after, side)
    error_rates = torch.stack((wrong_after, wrong_later))
    divergent = divergence(tiles_of(z, side, chosen), after, net.config.classes)
    return {
        "glance": 0.5 * judge(z, labels, class_weight, logit_px)[0].mean(),
        "distilled": config.distillation * divergent,
        "refined": refined.mean(),
        "glance_overlap": 0.5 * config.overlap * overlap_loss(z, labels, logit_px),
        "refined_overlap": config.overlap * overlap_loss(after, truth, logit_px),
        "left": F.binary_cross_entropy_with_logits(torch.stack((left, left_later)), error_rates),
        "gain": 0.1 * F.smooth_l1_loss(per_tile(promise, side), measured),
    }
