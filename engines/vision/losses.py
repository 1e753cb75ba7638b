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


def some_tiles(like: Tensor, tile_cells: int) -> Tensor:
    """Choose tiles at random, another share for every frame: [B, 1, h, w] of bool."""
    frames, _, height, width = like.shape
    chance = torch.rand(frames, 1, 1, 1, device=like.device)
    shape = (frames, 1, -(-height // tile_cells), -(-width // tile_cells))
    chosen = torch.rand(shape, device=like.device) < chance
    cells = chosen.repeat_interleave(tile_cells, 2).repeat_interleave(tile_cells, 3)
    return cells[:, :, :height, :width]


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
    """Unroll refinements: one from the glance and, in half of the batches, one from a mix of both.

    Every start is disturbed in half of the frames. The head learns on each state the error rate that the
    refinement left and its measured drop, and never pulls at the states themselves. The glance learns from
    the labels, and from what the refiner made of it.

    Returns:
        Scalars ``glance``, ``distilled``, ``refined``, ``left`` and ``gain``, to be added up.
    """
    tile_cells, logit_px = net.config.tile_cells, net.config.logit_px
    z, context = net.encode(normalise_exposure(frames))
    glance, _ = judge(z, labels, class_weight, logit_px)
    refined, left, gain = [], [], []
    state = z
    for _ in range(1 + int(torch.randint(2, ()))):
        state = disturb(state.detach(), net.config.noise_sigma, net.config.limit)
        after = net.refine_all(state, context)
        _, wrong_before = judge(state, labels, class_weight, logit_px)
        loss_after, wrong_after = judge(after, labels, class_weight, logit_px)
        refined.append(loss_after.mean())
        logit, promise = net.predict(state, context)
        left.append(F.binary_cross_entropy_with_logits(logit, wrong_after))
        measured = 100 * per_tile(wrong_before - wrong_after, tile_cells)
        gain.append(F.smooth_l1_loss(per_tile(promise, tile_cells), measured))
        state = torch.where(some_tiles(z, tile_cells), after, z)
    return {
        "glance": 0.5 * glance.mean(),
        "distilled": config.distillation * divergence(z, after, net.config.classes),
        "refined": torch.stack(refined).mean(),
        "left": torch.stack(left).mean(),
        "gain": 0.1 * torch.stack(gain).mean(),
    }
