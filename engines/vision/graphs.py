"""The four graphs that ship: encoder, step, energy and decoder.

Each takes and returns float32. The weights may be float16: then everything between the casts is float16, save
exposure, pooling and the sum z + step_size * delta, which stay float32 so that an energy does not depend on
who added up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engines.vision.nets import (
    HALO_CELLS,
    GlanceAndRefine,
    decode,
    normalise_exposure,
)


class EncoderGraph(nn.Module):
    """frame [B, 3, H, W] in [0, 1] -> z [B, Z, h, w], ctx [B, X, h, w], energy [B, T]."""

    def __init__(self, net: GlanceAndRefine) -> None:
        super().__init__()
        self.net = net

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Glance at the frames."""
        z, context = self.net.encode(normalise_exposure(frame).to(self.net.dtype))
        return z.float(), context.float(), self.net.energy(z, context)


class EnergyGraph(nn.Module):
    """z [B, Z, h, w], ctx [B, X, h, w] -> energy [B, T], the predicted pixel-error rate of every tile."""

    def __init__(self, net: GlanceAndRefine) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor, ctx: Tensor) -> Tensor:
        """Judge any latent."""
        return self.net.energy(z.to(self.net.dtype), ctx.to(self.net.dtype))


class DecoderGraph(nn.Module):
    """z [B, Z, h, w] -> logits [B, classes, H, W]."""

    def __init__(self, net: GlanceAndRefine) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> Tensor:
        """Read the logits out of the latent."""
        return decode(z.to(self.net.dtype), self.net.config.logit_px).float()


class StepGraph(nn.Module):
    """z, ctx, step_size [B] -> delta [B, Z, h, w], energy [B, T] of clip(z + step_size * delta).

    Only the most urgent tiles are refined; ``delta`` is zero everywhere else.
    """

    crops: Tensor
    tiles: Tensor

    def __init__(self, net: GlanceAndRefine) -> None:
        super().__init__()
        self.net = net
        height, width = net.grid
        self.side = side = net.config.tile_cells
        crop_rows, crop_columns = tile_cells(height, width, side, halo=HALO_CELLS)
        self.register_buffer("crops", crop_rows * (width + 2 * HALO_CELLS) + crop_columns, persistent=False)
        rows, columns = tile_cells(height, width, side, halo=0)
        self.register_buffer("tiles", rows * width + columns, persistent=False)

    def forward(self, z: Tensor, ctx: Tensor, step_size: Tensor) -> tuple[Tensor, Tensor]:
        """Refine the most promising tiles."""
        latent, context = z.to(self.net.dtype), ctx.to(self.net.dtype)
        urgency = self.net.urgency(latent, context)
        best = torch.topk(urgency, self.net.config.tiles_per_step, dim=1, sorted=False).indices
        refined = self.net.refiner(self._gather(self.net.haloed(latent, context), best))
        delta = self._scatter_difference(z, refined.float(), best)
        moved = z + step_size.view(-1, 1, 1, 1) * delta
        moved = moved.clamp(-self.net.config.limit, self.net.config.limit).to(self.net.dtype)
        return delta, self.net.energy(moved, context)

    def _gather(self, seen: Tensor, best: Tensor) -> Tensor:
        """Cut out m tiles with their halo: [B, D, h', w'], [B, m] -> [B * m, D, n, n]."""
        side = self.side + 2 * HALO_CELLS
        channels = self.net.latent + self.net.seen_channels
        cells = self.crops[best].flatten(1)[:, None].repeat(1, channels, 1)
        cut = seen.flatten(2).gather(2, cells).reshape(-1, channels, self.net.config.tiles_per_step, side**2)
        return cut.transpose(1, 2).reshape(-1, channels, side, side)

    def _scatter_difference(self, z: Tensor, refined: Tensor, best: Tensor) -> Tensor:
        """Return refined - z at the m chosen tiles, [B * m, Z, n, n], and zero elsewhere: [B, Z, h, w]."""
        channels, tiles = self.net.latent, self.net.config.tiles_per_step
        cells = self.tiles[best].flatten(1)[:, None].repeat(1, channels, 1)
        after = refined.reshape(-1, tiles, channels, self.side**2).transpose(1, 2).flatten(2)
        flat = z.flatten(2)
        delta = (0.0 * flat).scatter(2, cells, after - flat.gather(2, cells))
        return delta.reshape(-1, channels, *self.net.grid)


def tile_cells(height: int, width: int, side: int, halo: int) -> tuple[Tensor, Tensor]:
    """Return row and column of every cell of every tile, in a map padded by ``halo``: int64 [T, n * n]."""
    cells = torch.arange(side + 2 * halo)
    rows = torch.arange(0, height, side)[:, None] + cells
    columns = torch.arange(0, width, side)[:, None] + cells
    shape = (len(rows), len(columns), len(cells), len(cells))
    of_rows = rows[:, None, :, None].expand(shape)
    of_columns = columns[None, :, None, :].expand(shape)
    return of_rows.reshape(-1, len(cells) ** 2), of_columns.reshape(-1, len(cells) ** 2)
