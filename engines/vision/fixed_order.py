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

    def step(z: Floats, ctx: Floats, index: int) -> tuple[Floats, Floats]:
        chosen = torch.from_numpy(order[index * handful : (index + 1) * handful])
        latent, context = torch.from_numpy(z), torch.from_numpy(ctx)
        with torch.no_grad():
            after = net.refine_tiles(latent, context, chosen)
            return after.numpy(), net.energy(after, context).numpy()

    return step
