"""A feed-forward rival: a net whose glance is its answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.vision.tiles import to_input
from engines.vision.data import VOID, LabelledFrames
from engines.vision.nets import GlanceAndRefine, decode, normalise_exposure
from sage_edge.quality import confusion


def glance_confusions(net: GlanceAndRefine, data: LabelledFrames) -> NDArray[np.int64]:
    """Hold the glance of a net against the labels of every frame: int64 [N, classes, classes]."""
    answers = []
    for frame in tqdm(data.frames, "twin"):
        with torch.no_grad():
            z, _ = net.guess(normalise_exposure(to_input(frame)))
            answers.append(decode(z, net.config.logit_px).argmax(1)[0].numpy())
    pairs = zip(data.labels, answers, strict=True)
    return np.stack([confusion(labels, answer, net.config.classes, VOID) for labels, answer in pairs])


def glance_macs(net: GlanceAndRefine) -> int:
    """Count the multiply-adds of the convolutions of one glance."""
    total = 0

    def count(module: torch.nn.Conv2d, _: Any, out: torch.Tensor) -> None:
        nonlocal total
        total += out.numel() * module.weight[0].numel()

    parts = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
    hooks = [module.register_forward_hook(count) for module in parts]
    with torch.no_grad():
        net.guess(torch.zeros(1, 3, *net.config.size_px))
    for hook in hooks:
        hook.remove()
    return total
