"""Varies training frames, on their device: turned, mirrored, zoomed, tinted, and some made hard."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from engines.vision.config import AugmentConfig
from engines.vision.data import VOID

EXPOSURE, PHOTONS, BLUR_PX = (0.3, 1.4), (30.0, 1000.0), (0.4, 1.6)
BLUR_REACH_PX = 4


def vary(frames: Tensor, labels: Tensor, config: AugmentConfig) -> tuple[Tensor, Tensor]:
    """Draw one variation for each frame.

    Args:
        frames: uint8 [B, 3, H, W].
        labels: uint8 [B, H, W].
        config: How far to go.

    Returns:
        float32 [B, 3, h, w] in [0, 1] and int64 [B, h, w] of the crop; VOID beyond the frame.
    """
    grid = _placement(frames, config)
    placed = F.grid_sample(frames.float() / 255, grid, padding_mode="reflection", align_corners=False)
    of_labels = F.grid_sample(labels[:, None].float() - VOID, grid, mode="nearest", align_corners=False)
    return spoil(tint(placed, config.tint), config.hard_share), of_labels[:, 0].round().long() + VOID


def _placement(frames: Tensor, config: AugmentConfig) -> Tensor:
    """Draw where each crop lies: the grid of ``grid_sample``, [B, h, w, 2]."""
    count, _, height, width = frames.shape
    zoom = _log_uniform(config.zoom, count, frames.device)
    half = torch.stack((config.crop_px[1] / (width * zoom), config.crop_px[0] / (height * zoom)), dim=1)
    shift = (1 - half).clamp(min=0) * (2 * torch.rand(count, 2, device=frames.device) - 1)
    mirror = 1.0 - 2.0 * torch.randint(2, (count,), device=frames.device)
    turn = torch.randint(4 if config.turns else 1, (count,), device=frames.device) * (math.pi / 2)
    rows = (
        torch.stack((turn.cos() * mirror, -turn.sin()), dim=1),
        torch.stack((turn.sin() * mirror, turn.cos()), dim=1),
    )
    theta = torch.cat((torch.stack(rows, dim=1) * half[:, :, None], shift[:, :, None]), dim=2)
    return F.affine_grid(theta, [count, 3, *config.crop_px], align_corners=False)


def tint(frames: Tensor, strength: float) -> Tensor:
    """Amplify each colour of each frame by up to 1 + ``strength``, or dampen it as much; [B, 3, h, w]."""
    gains = _log_uniform((1 / (1 + strength), 1 + strength), 3 * len(frames), frames.device)
    return frames * gains.view(-1, 3, 1, 1)


def spoil(frames: Tensor, share: float) -> Tensor:
    """Blur a share of the frames, expose them otherwise, and let them count few photons; [B, 3, h, w]."""
    count, device = len(frames), frames.device
    chosen = torch.rand(count, 1, 1, 1, device=device) < share
    exposure, photons = (
        _log_uniform(bounds, count, device)[:, None, None, None] for bounds in (EXPOSURE, PHOTONS)
    )
    light = _blurred(frames, _log_uniform(BLUR_PX, count, device)) * exposure
    counted = light + (light / photons).sqrt() * torch.randn_like(light)
    return torch.where(chosen, counted.clamp(0, 1), frames)


def _blurred(frames: Tensor, sigma_px: Tensor) -> Tensor:
    """Convolve each frame with a Gaussian of its own."""
    count, channels, *size = frames.shape
    at = torch.arange(-BLUR_REACH_PX, BLUR_REACH_PX + 1, device=frames.device)
    kernel = torch.exp(-0.5 * (at / sigma_px[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, 0)[:, None, :, None]
    planes = F.pad(frames.reshape(1, count * channels, *size), (BLUR_REACH_PX,) * 4, mode="reflect")
    down = F.conv2d(planes, kernel, groups=count * channels)
    return F.conv2d(down, kernel.transpose(2, 3), groups=count * channels).reshape(frames.shape)


def _log_uniform(bounds: tuple[float, float], count: int, device: torch.device) -> Tensor:
    low, high = (math.log(bound) for bound in bounds)
    return torch.exp(low + (high - low) * torch.rand(count, device=device))
