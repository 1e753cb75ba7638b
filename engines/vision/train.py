"""Fit the weights of a recipe: ``python -m engines.vision.train --config FILE --data DIR --out DIR``.

A second run with ``--head-of CHECKPOINT`` fits the head alone to the nets of a finished one. A run is resumed
from ``checkpoint.pt`` in its output folder, with the right schedule but new random draws; ``--iterations``
shortens it for a first look.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from engines.vision.batches import batches
from engines.vision.config import Recipe, load_recipe
from engines.vision.data import LabelledFrames, load_split
from engines.vision.losses import training_loss
from engines.vision.nets import GlanceAndRefine

WARM_UP_SHARE = 1 / 15
SAVE_EVERY = 200


class Trainer:
    """One run: the weights, their running average, the optimiser and its schedule.

    Args:
        recipe: What to train and how.
        iterations: The length of the schedule.
        head_of: A checkpoint; all but the head is taken from it and stays as it is.
    """

    def __init__(self, recipe: Recipe, iterations: int, head_of: Path | None = None) -> None:
        torch.manual_seed(recipe.train.seed)
        settings = recipe.train
        self.class_weight = torch.tensor(settings.class_weight)
        net = GlanceAndRefine(recipe.net) if head_of is None else load_weights(recipe, head_of)
        net.requires_grad_(head_of is None).head.requires_grad_(True)
        self.net = net.to(memory_format=torch.channels_last)
        average = get_ema_multi_avg_fn(settings.average_decay)
        self.average = AveragedModel(self.net, multi_avg_fn=average, use_buffers=True)
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, settings.learning_rate, total_steps=iterations, pct_start=WARM_UP_SHARE
        )
        self.iteration = 0

    def step(self, frames: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Take one optimiser step; return the parts of the loss."""
        frames = frames.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            parts = training_loss(self.net, frames, labels, self.class_weight)
        self.optimiser.zero_grad()
        torch.stack(tuple(parts.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.schedule.step()
        self.average.update_parameters(self.net)
        self.iteration += 1
        return {name: part.item() for name, part in parts.items()}

    def save(self, path: Path) -> None:
        """Write all that a resumed run needs; ``average`` is what is exported."""
        parts = {
            name: getattr(self, name).state_dict() for name in ("net", "average", "optimiser", "schedule")
        }
        torch.save({**parts, "iteration": self.iteration}, path)

    def resume(self, path: Path) -> None:
        """Go on where a checkpoint of the same recipe and length stopped."""
        saved = torch.load(path, weights_only=True)
        for name in ("net", "average", "optimiser", "schedule"):
            getattr(self, name).load_state_dict(saved[name])
        self.iteration = saved["iteration"]


def load_weights(recipe: Recipe, checkpoint: Path) -> GlanceAndRefine:
    """Return the averaged weights of a checkpoint, ready to be evaluated."""
    average = AveragedModel(GlanceAndRefine(recipe.net))
    average.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    net: GlanceAndRefine = average.module
    return net.eval()


def train(trainer: Trainer, recipe: Recipe, data: LabelledFrames, out: Path, iterations: int) -> None:
    """Train to the end, saving ``checkpoint.pt`` and appending to ``losses.jsonl`` on the way."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        trainer.resume(checkpoint)
    stream = batches(data, recipe.train.batch, np.random.default_rng([recipe.train.seed, trainer.iteration]))
    with (out / "losses.jsonl").open("a") as log, tqdm(total=iterations, initial=trainer.iteration) as bar:
        while trainer.iteration < iterations:
            parts = trainer.step(*next(stream))
            bar.update()
            bar.set_postfix({name: f"{value:.3f}" for name, value in parts.items()})
            log.write(json.dumps({"iteration": trainer.iteration, **parts}) + "\n")
            if trainer.iteration % SAVE_EVERY == 0 or trainer.iteration == iterations:
                trainer.save(checkpoint)
                log.flush()


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the recipe, a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="the folder with train/ and trainannot/")
    parser.add_argument("--out", type=Path, required=True, help="where checkpoint and log go")
    parser.add_argument("--iterations", type=int, help="instead of the recipe's")
    parser.add_argument("--head-of", type=Path, help="fit the head alone, to the nets of this checkpoint")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = load_recipe(args.config)
    data = load_split(args.data, "train", recipe.data)
    planned = recipe.train.head_iterations if args.head_of else recipe.train.iterations
    iterations = args.iterations or planned
    train(Trainer(recipe, iterations, args.head_of), recipe, data, args.out, iterations)


if __name__ == "__main__":
    main()
