"""Fit the reader of a recipe: ``python -m engines.language.train --config FILE --data DIR --out DIR``.

A run is resumed from ``checkpoint.pt`` in its output folder as if it had never stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from engines.language.config import Recipe, load_recipe
from engines.language.data import load_library
from engines.language.examples import Batch, Examples, draw, load_sentences, make_examples
from engines.language.nets import Reader, base_folder
from engines.language.vocabulary import pruned

SAVE_EVERY_S = 120.0
MODULES = ("net", "optimiser", "schedule")


class Trainer:
    """One run: the weights, the optimiser and its schedule."""

    def __init__(self, recipe: Recipe, net: Reader, device: str = "cpu") -> None:
        settings = recipe.train
        self.device = device
        self.net = net.to(device)
        weights = [weight for weight in net.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.AdamW(
            weights, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda done: rate_at(done / settings.iterations, settings.warm_up)
        )
        self.iteration = 0

    def step(self, batch: Batch) -> float:
        """Take one optimiser step; return the loss."""
        ids, begin, first, last = (
            torch.from_numpy(part).to(self.device)
            for part in (batch.ids, batch.begin, batch.first, batch.last)
        )
        with torch.autocast(self.device, torch.bfloat16):
            _, logits = self.net(ids, begin)
        loss = pointer_loss(logits, ids, begin, first, last)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.schedule.step()
        self.iteration += 1
        return loss.item()

    def save(self, path: Path) -> None:
        """Write all that a resumed run needs."""
        partial = path.with_suffix(".partial")
        parts = {name: getattr(self, name).state_dict() for name in MODULES}
        torch.save({**parts, "iteration": self.iteration}, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Go on where a checkpoint of the same recipe stopped."""
        saved = torch.load(path, map_location="cpu", weights_only=True)
        for name in MODULES:
            getattr(self, name).load_state_dict(saved[name])
        self.iteration = saved["iteration"]


def rate_at(done: float, warm_up: float) -> float:
    """How much of the learning rate to use: up on a line, and down on one to nothing."""
    return done / warm_up if done < warm_up else (1 - done) / (1 - warm_up)


def pointer_loss(logits: Tensor, ids: Tensor, begin: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Cross-entropy of the first and of the last piece, among the window's pieces and the null at 0."""
    at = torch.arange(ids.shape[1], device=ids.device)
    closed = (ids == 0) | ((at < begin[:, None]) & (at > 0))
    open_logits = logits.masked_fill(closed[:, :, None], -1e4)
    return (
        functional.cross_entropy(open_logits[:, :, 0], first)
        + functional.cross_entropy(open_logits[:, :, 1], last)
    ) / 2


def load_weights(recipe: Recipe, checkpoint: Path) -> Reader:
    """The weights of a checkpoint, on the CPU and ready to be evaluated."""
    net = Reader(recipe.net)
    net.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["net"])
    return net.eval()


def forget_after(log: Path, iteration: int) -> None:
    """Drop the lines of iterations that came after the last checkpoint and will be run again."""
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if json.loads(line)["iteration"] <= iteration))


def train(trainer: Trainer, recipe: Recipe, examples: Examples, out: Path) -> None:
    """Train to the end, saving ``checkpoint.pt`` and ``losses.jsonl`` on the way."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, log_path = out / "checkpoint.pt", out / "losses.jsonl"
    if checkpoint.exists():
        trainer.resume(checkpoint)
        forget_after(log_path, trainer.iteration)
    settings, saved_s, group, batches = recipe.train, time.monotonic(), -1, []
    total = settings.iterations
    with log_path.open("a") as log, tqdm(total=total, initial=trainer.iteration, mininterval=10) as bar:
        while trainer.iteration < total:
            if group != trainer.iteration // settings.bucket:
                group = trainer.iteration // settings.bucket
                batches = draw(examples, recipe.net, settings, group)
            loss = trainer.step(batches[trainer.iteration % settings.bucket])
            bar.update()
            log.write(json.dumps({"iteration": trainer.iteration, "loss": loss}) + "\n")
            if time.monotonic() - saved_s > SAVE_EVERY_S or trainer.iteration == total:
                log.flush()
                trainer.save(checkpoint)
                saved_s = time.monotonic()


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the recipe, a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="the folder with the recipe's files")
    parser.add_argument("--out", type=Path, required=True, help="where checkpoint and log go")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = load_recipe(args.config)
    torch.manual_seed(recipe.train.seed)
    base = base_folder(recipe.net.base)
    tokenizer, old_numbers = pruned(base / "tokenizer.json", recipe.net.vocabulary)
    data = recipe.data
    library = load_library(
        args.data / data.train, kept_apart=False, share=data.calibration_share, mixed=data.mixed
    )
    sentences = load_sentences(args.data / data.sentences) if data.sentences else None
    examples = make_examples(tokenizer, library, sentences, recipe.net)
    net = Reader(recipe.net)
    net.load_base(base, old_numbers)
    net.freeze_embeddings()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train(Trainer(recipe, net, device), recipe, examples, args.out)


if __name__ == "__main__":
    main()
