"""What is asked of a state, of a refinement and of the head. Cells are [B, 1, h, w], pixels [B, H, W]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from engines.vision.nets import CELL_PX, TILE_CELLS, GlanceAndRefine, decode, normalise_exposure, per_tile


def per_cell(pixels: Tensor) -> Tensor:
    """Average the pixels of each cell: [B, H, W] -> [B, 1, h, w]."""
    return F.avg_pool2d(pixels[:, None].float(), CELL_PX)


def judge(z: Tensor, labels: Tensor, class_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Hold a latent against the truth.

    Args:
        z: [B, Z, h, w].
        labels: int64 [B, H, W].
        class_weight: [classes], how much a pixel of each class counts.

    Returns:
        The weighted cross-entropy and the weighted error rate of each cell, both [B, 1, h, w]; the rate is 1
        where every pixel is wrong and of the class that counts most.
    """
    logits = decode(z.float(), len(class_weight))
    loss = F.cross_entropy(logits, labels, weight=class_weight, reduction="none")
    wrong = (logits.detach().argmax(1) != labels) * class_weight[labels] / class_weight.max()
    return per_cell(loss), per_cell(wrong)


def some_tiles(like: Tensor) -> Tensor:
    """Choose tiles at random, another share for every frame: [B, 1, h, w] of bool."""
    frames, _, height, width = like.shape
    chance = torch.rand(frames, 1, 1, 1)
    chosen = torch.rand(frames, 1, height // TILE_CELLS, width // TILE_CELLS) < chance
    return chosen.repeat_interleave(TILE_CELLS, 2).repeat_interleave(TILE_CELLS, 3)


def disturb(z: Tensor, sigma: float, limit: float) -> Tensor:
    """Add Gaussian noise, of up to 1.5 sigma, to about half of the frames; [B, Z, h, w] in and out."""
    strength = 1.5 * sigma * (2 * torch.rand(z.shape[0], 1, 1, 1) - 1).clamp(min=0)
    return (z + strength * torch.randn(z.shape)).clamp(-limit, limit)


def training_loss(
    net: GlanceAndRefine, frames: Tensor, labels: Tensor, class_weight: Tensor
) -> dict[str, Tensor]:
    """Unroll two refinements: one from the glance, one from a mix of glance and first refinement.

    The head learns on both states the error rate that the refinement left and its measured drop, and never
    pulls at the states themselves.

    Returns:
        Scalars ``glance``, ``refined``, ``left`` and ``gain``, to be added up.
    """
    z, context = net.encode(normalise_exposure(frames))
    glance, _ = judge(z, labels, class_weight)
    refined, left, gain = [], [], []
    state = z
    for _ in range(2):
        state = disturb(state.detach(), net.config.noise_sigma, net.config.limit)
        after = net.refine_all(state, context)
        _, wrong_before = judge(state, labels, class_weight)
        loss_after, wrong_after = judge(after, labels, class_weight)
        refined.append(loss_after.mean())
        logit, promise = net.predict(state, context)
        left.append(F.binary_cross_entropy_with_logits(logit, wrong_after))
        gain.append(F.smooth_l1_loss(per_tile(promise), 100 * per_tile(wrong_before - wrong_after)))
        state = torch.where(some_tiles(z), after, z)
    return {
        "glance": 0.5 * glance.mean(),
        "refined": torch.stack(refined).mean(),
        "left": torch.stack(left).mean(),
        "gain": 0.1 * torch.stack(gain).mean(),
    }
