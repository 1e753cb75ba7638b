"""The rival of choosing tiles by their gain: refining them in an order that was set beforehand."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from engines.vision.nets import GlanceAndRefine
from engines.vision.trajectory import Floats, Stepper


def fixed_order(net: GlanceAndRefine, order: NDArray[np.int64]) -> Stepper:
    """Return a stepper that refines the tiles in a given order instead of the model's own.

    Args:
        net: The weights that the graphs were exported from.
        order: A permutation of the tiles; step k takes the k-th handful of it.
    """
    handful = net.config.tiles_per_step
    side = net.config.tile_cells
    rows, columns = (cells // side for cells in net.grid)

    def step(z: Floats, ctx: Floats, index: int) -> tuple[Floats, Floats]:
        chosen = torch.zeros(rows * columns, dtype=torch.bool)
        chosen[order[index * handful : (index + 1) * handful]] = True
        mask = chosen.view(rows, columns).repeat_interleave(side, 0).repeat_interleave(side, 1)
        latent, context = torch.from_numpy(z), torch.from_numpy(ctx)
        with torch.no_grad():
            after = torch.where(mask, net.refine_all(latent, context), latent)
            return after.numpy(), net.energy(after, context).numpy()

    return step
