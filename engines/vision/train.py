"""Fit the weights of a recipe: ``python -m engines.vision.train --config FILE --data DIR --out DIR``.

A second run with ``--head-of CHECKPOINT`` fits the head alone to the nets of a finished one, on frames that
the nets were not trained on where the recipe keeps some. Once halt and trust are chosen, a third one with
``--refit-of CHECKPOINT`` goes on with the nets, at a lower rate, on all frames, and leaves the head. A run is
resumed from ``checkpoint.pt`` in its output folder as if it had never stopped; ``--iterations`` shortens it,
or what is left of it. With a GPU the whole set lies on it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from engines.vision.augment import vary
from engines.vision.config import Recipe, load_recipe
from engines.vision.curve import draw_curve
from engines.vision.data import LabelledFrames, load_split
from engines.vision.losses import glance_loss, training_loss
from engines.vision.nets import GlanceAndRefine

WARM_UP_SHARE = 1 / 15
SAVE_EVERY_S = 120.0
Tensors = Sequence[Tensor]
MODULES = ("net", "average", "optimiser", "schedule")


class Trainer:
    """One run: the weights, their running average, the optimiser, its schedule and the random draws.

    Args:
        recipe: What to train and how.
        iterations: The length of the schedule.
        head_of: A checkpoint; all but the head is taken from it and stays as it is.
        trunk: ImageNet weights to start from.
        start_of: A checkpoint; the glance is taken, and of the rest what has the same shape. Refining starts
            as that glance, at the first iteration.
        refit_of: A checkpoint; all is taken from it, and the head stays as it is.
        device: Where to train.
    """

    def __init__(
        self,
        recipe: Recipe,
        iterations: int,
        head_of: Path | None = None,
        trunk: Path | None = None,
        start_of: Path | None = None,
        refit_of: Path | None = None,
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(recipe.train.seed)
        settings = self.settings = recipe.train
        self.device = device
        self.glance_iterations = 0 if head_of or start_of or refit_of else settings.glance_iterations
        self.class_weight = torch.tensor(settings.class_weight, device=device)
        net = GlanceAndRefine(recipe.net)
        for part in net.pretrained if trunk else []:
            part.load(trunk)
        if start_of:
            take(net, start_of, but_for=("refiner.", "head."))
            net.refiner.start_as(net)
        elif head_of:
            take(net, head_of, but_for="head.")
        elif refit_of:
            take(net, refit_of)
        if head_of:
            net.eval()
        net.requires_grad_(head_of is None).head.requires_grad_(refit_of is None)
        self.net = net.to(device, memory_format=torch.channels_last)
        average = running_average(settings.average_decay)
        self.average = AveragedModel(self.net, multi_avg_fn=average, use_buffers=True)
        rate = settings.learning_rate * (settings.refit_rate if refit_of else 1)
        sorted_weights = groups(net, rate, settings.trunk_rate)
        self.optimiser = torch.optim.AdamW(sorted_weights, weight_decay=settings.weight_decay)
        begins = [self.glance_iterations if group["late"] else 0 for group in self.optimiser.param_groups]
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, [partial(rate_between, begin, iterations) for begin in begins]
        )
        self.iteration = 0

    def step(self, frames: Tensor, labels: Tensor) -> dict[str, float]:
        """Take one optimiser step; return the parts of the loss."""
        frames = frames.contiguous(memory_format=torch.channels_last)
        if 0 < self.iteration == self.glance_iterations:
            self.net.refiner.start_as(self.net)
        with torch.autocast(self.device, torch.bfloat16):
            if self.iteration < self.glance_iterations:
                parts = glance_loss(self.net, frames, labels, self.class_weight, self.settings)
            else:
                parts = training_loss(self.net, frames, labels, self.class_weight, self.settings)
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
        parts = {name: getattr(self, name).state_dict() for name in MODULES}
        random = {"cpu": torch.get_rng_state()}
        if self.device == "cuda":
            random["cuda"] = torch.cuda.get_rng_state()
        partial = path.with_suffix(".partial")
        torch.save({**parts, "iteration": self.iteration, "random": random}, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Go on where a checkpoint of the same recipe and device stopped; what is left may be shortened."""
        saved = torch.load(path, map_location="cpu", weights_only=True)
        for name in MODULES:
            getattr(self, name).load_state_dict(saved[name])
        self.iteration = saved["iteration"]
        torch.set_rng_state(saved["random"]["cpu"])
        if self.device == "cuda":
            torch.cuda.set_rng_state(saved["random"]["cuda"])


def running_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Return what moves averaged weights towards the current ones: the faster, the fewer were averaged.

    So the weights that a run started from are forgotten within a few iterations, and not in 1 / (1 - decay).
    """

    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        share = max(1 - decay, 9 / (10 + int(count)))
        for mean, new in zip(averaged, current, strict=True):
            mean.lerp_(new, share) if mean.is_floating_point() else mean.copy_(new)

    return update


def take(net: GlanceAndRefine, checkpoint: Path, but_for: str | tuple[str, ...] = ()) -> None:
    """Copy a checkpoint's averaged weights; of the parts ``but_for``, what has the same shape or nothing.

    Raises:
        ValueError: The checkpoint has none of the right shape for one of them; the message names it.
    """
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["average"]
    own = net.state_dict()
    named = {name.removeprefix("module."): value for name, value in saved.items()}
    fits = {name: value for name, value in named.items() if name in own and own[name].shape == value.shape}
    if missing := [name for name in own if name not in fits and not name.startswith(but_for)]:
        raise ValueError(f"{checkpoint}: expected weights for {missing[0]}, there are none of its shape")
    net.load_state_dict(fits, strict=False)


def load_weights(recipe: Recipe, checkpoint: Path) -> GlanceAndRefine:
    """Return the averaged weights of a checkpoint, on the CPU and ready to be evaluated."""
    average = AveragedModel(GlanceAndRefine(recipe.net))
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    average.load_state_dict(saved["average"])
    net: GlanceAndRefine = average.module
    return net.eval()


def groups(net: GlanceAndRefine, rate: float, trunk_rate: float) -> list[dict[str, Any]]:
    """Sort the weights by their learning rate: pretrained or not, and there from the start or ``late``."""
    pretrained = {id(weight) for part in net.pretrained for weight in part.parameters()}
    late = {id(weight) for part in (net.refiner, net.head) for weight in part.parameters()}
    rates = {False: rate, True: rate * trunk_rate}
    sorted_by = [(is_late, is_known) for is_late in (False, True) for is_known in (False, True)]
    return [
        {
            "params": [
                weight
                for weight in net.parameters()
                if (id(weight) in late, id(weight) in pretrained) == (is_late, is_known)
            ],
            "lr": rates[is_known],
            "late": is_late,
        }
        for is_late, is_known in sorted_by
    ]


def rate_between(begin: int, end: int, iteration: int) -> float:
    """Say how much of the learning rate to use: up a line, down a cosine, from ``begin`` to ``end``."""
    done = max(iteration - begin, 0) / max(end - begin, 1)
    if done < WARM_UP_SHARE:
        return 0.04 + 0.96 * done / WARM_UP_SHARE
    return 0.5 + 0.5 * math.cos(math.pi * (done - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))


def draw_batch(iteration: int, frames: int, batch: int, seed: int) -> Tensor:
    """Say which frames are in a batch, so that every epoch has each frame once: int64 [batch].

    A batch at the end of an epoch that is not full takes the rest from the next.
    """
    places = torch.arange(iteration * batch, (iteration + 1) * batch)
    epochs = {int(epoch): np.random.default_rng([seed, int(epoch)]) for epoch in (places // frames).unique()}
    orders = {epoch: rng.permutation(frames) for epoch, rng in epochs.items()}
    return torch.tensor([int(orders[int(p) // frames][int(p) % frames]) for p in places])


def forget_after(log: Path, iteration: int) -> None:
    """Drop the lines of iterations that came after the last checkpoint and will be run again."""
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if json.loads(line)["iteration"] <= iteration))


def train(trainer: Trainer, recipe: Recipe, data: LabelledFrames, out: Path, iterations: int) -> None:
    """Train to the end, saving ``checkpoint.pt``, ``losses.jsonl`` and ``losses.png`` on the way."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, log_path = out / "checkpoint.pt", out / "losses.jsonl"
    if checkpoint.exists():
        trainer.resume(checkpoint)
        forget_after(log_path, trainer.iteration)
    frames = torch.from_numpy(data.frames).permute(0, 3, 1, 2).contiguous().to(trainer.device)
    labels = torch.from_numpy(data.labels).to(trainer.device)
    saved_s = time.monotonic()
    with log_path.open("a") as log, tqdm(total=iterations, initial=trainer.iteration, mininterval=5) as bar:
        while trainer.iteration < iterations:
            chosen = draw_batch(trainer.iteration, len(data), recipe.train.batch, recipe.train.seed)
            parts = trainer.step(*vary(frames[chosen], labels[chosen], recipe.augment))
            bar.update()
            bar.set_postfix({name: f"{value:.3f}" for name, value in parts.items()}, refresh=False)
            log.write(json.dumps({"iteration": trainer.iteration, **parts}) + "\n")
            if time.monotonic() - saved_s > SAVE_EVERY_S or trainer.iteration == iterations:
                log.flush()
                trainer.save(checkpoint)
                saved_s = time.monotonic()
                draw_curve(log_path, out / "losses.png")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the recipe, a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="the folder with train/ and trainannot/")
    parser.add_argument("--out", type=Path, required=True, help="where checkpoint and log go")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of the trunk, a safetensors file")
    parser.add_argument("--iterations", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    finished = parser.add_mutually_exclusive_group()
    finished.add_argument(
        "--start-of", type=Path, help="take the glance of this checkpoint, and refine at once"
    )
    finished.add_argument("--head-of", type=Path, help="fit the head alone, to the nets of this checkpoint")
    finished.add_argument("--refit-of", type=Path, help="go on with its nets, on all frames; the head stays")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = load_recipe(args.config, args.seed)
    split, planned = "train", recipe.train.iterations
    if args.head_of:
        split, planned = "head" if recipe.data.head_share else "train", recipe.train.head_iterations
    elif args.refit_of:
        split, planned = "all", recipe.train.refit_iterations
    data = load_split(args.data, split, recipe.data)
    iterations = args.iterations or planned
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trainer = Trainer(recipe, iterations, args.head_of, args.weights, args.start_of, args.refit_of, device)
    train(trainer, recipe, data, args.out, iterations)


if __name__ == "__main__":
    main()
