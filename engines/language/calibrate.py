"""Fit glance, evidence, halt and trust on articles that no weight was fitted to, and write the manifest.

``python -m engines.language.calibrate --config FILE --data DIR --models DIR``

Half of the kept-apart articles are asked what they answer, and some of what only the other half answers:
so that no answer has its chance.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.language.config import Recipe, load_recipe
from engines.language.data import Library, Question, load_library
from engines.language.export import WINDOWS
from engines.language.posterior import Paths, answer_steps, follow, halting_steps
from engines.language.reads import READS, Floats, Reads, open_plugin, read_all
from engines.vision.trust import decreasing_fit
from sage_edge.plugins.language.state import MARK, MOST_EVIDENCE, SCORE, SHARE

#: The chance that a text does not answer: a choice, since no data says what will be asked.
NOWHERE = 0.1
#: A span counts as right from this F1 on.
RIGHT = 0.5
KNOTS = 24
#: What halting early may cost, in F1, on the articles for calibration.
MOST_LOSS = 0.006
#: The limits of a run beside its target.
HALTING = {"eps": 0.005, "K": 2, "max_steps": READS}
START = {
    "glance": {"beta": 0.5, "nowhere": NOWHERE},
    "evidence": {"slope": 1.0, "offset": 0.0, "sharpness": 0.5},
    "halting": {"target_E_norm": 0.2, **HALTING},
    "trust": {"E_norm": [0.0, 1.0], "quality": [1.0, 0.0]},
}


def halves(library: Library) -> tuple[Library, Library]:
    """Two libraries of every other article each."""
    titles = sorted(set(library.articles))
    return part_of(library, set(titles[::2])), part_of(library, set(titles[1::2]))


def part_of(library: Library, titles: set[str]) -> Library:
    """The articles of these titles."""
    kept = [number for number, title in enumerate(library.articles) if title in titles]
    places = {number: place for place, number in enumerate(kept)}
    questions = tuple(
        replace(question, paragraph=places[question.paragraph])
        for question in library.questions
        if question.paragraph in places
    )
    return Library(
        tuple(library.paragraphs[n] for n in kept), tuple(library.articles[n] for n in kept), questions
    )


def drawn(questions: tuple[Question, ...], count: int, seed: int) -> list[Question]:
    """So many questions, in a random order that is the same every time."""
    order = np.random.default_rng(seed).permutation(len(questions))
    return [questions[n] for n in order[:count]]


def fit_posterior(own: Reads, other: Reads) -> dict[str, dict[str, float]]:
    """The likeliest glance and evidence: what was found after each read is least surprising then.

    Args:
        own: Questions that their library answers.
        other: Questions that the same library does not answer.
    """
    bm25 = torch.cat([_glances(own), _glances(other)])
    right = torch.from_numpy(np.concatenate([own.f1 >= RIGHT, np.zeros(other.f1.shape, bool)]))
    z = torch.from_numpy(np.concatenate([own.z, other.z])).double()
    score, share, read = z[:, :, SCORE], z[:, :, SHARE], (z[:, :, MARK] > 0.5).double()
    numbers = torch.tensor([-2.0, -1.0, 1.0, -0.5], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([numbers], max_iter=200, line_search_fn="strong_wolfe")

    def surprise() -> Tensor:
        beta, slope, offset, sharpness = _meant(numbers)
        prior = torch.softmax(beta * bm25, dim=1)[:, :READS] * (1 - NOWHERE)
        window = prior * torch.exp((slope * score + offset).clamp(-MOST_EVIDENCE, MOST_EVIDENCE)) * read
        span = window * torch.exp(sharpness * share)
        steps = []
        for step in range(1, READS + 1):
            found, rest = window[:, :step].sum(1), 1 - prior[:, :step].sum(1)
            hit = (span * right)[:, :step].sum(1)
            missed = rest + (window - span)[:, :step].sum(1)
            true = torch.where(right[:, :step].any(1), hit, missed)
            steps.append(torch.log(found + rest) - torch.log(true))
        return torch.stack(steps).mean()

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = surprise()
        loss.backward()
        return loss

    optimiser.step(closure)
    beta, slope, offset, sharpness = (round(float(number), 6) for number in _meant(numbers.detach()))
    return {
        "glance": {"beta": beta, "nowhere": NOWHERE},
        "evidence": {"slope": slope, "offset": offset, "sharpness": sharpness},
    }


def _meant(numbers: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Beta and slope, which are above 0, the offset, and the sharpness, which is above 0 too."""
    return numbers[0].exp(), numbers[1].exp(), numbers[2], numbers[3].exp()


def _glances(reads: Reads) -> Tensor:
    """BM25 of every window, the likeliest first: float64 [N, windows]."""
    asked = [one.ids[0, 1 : int(one.facts[0]) - 1].astype(np.int32) for one in reads.asked]
    scores = [one.text.index.scores(pieces) for one, pieces in zip(reads.asked, asked, strict=True)]
    return torch.from_numpy(-np.sort(-np.stack(scores).astype(np.float64), axis=1))


def choose_target(reads: Reads) -> float:
    """The largest energy to stop at that costs at most MOST_LOSS of the F1 of all reads."""
    floor = follow(reads).f1[:, READS].mean() - MOST_LOSS
    for target in np.linspace(0.6, 0.02, 59):
        paths = follow(reads, float(target))
        if f1_at(paths, halting_steps(paths.E, target, HALTING["K"], HALTING["eps"])).mean() >= floor:
            return round(float(target), 4)
    return 0.02


def f1_at(paths: Paths, halted: NDArray[np.int64]) -> Floats:
    """F1 of the answers of runs that halt there."""
    found: Floats = paths.f1[np.arange(len(halted)), answer_steps(paths.E, halted)]
    return found


def trust_table(E: Floats, f1: Floats) -> dict[str, list[float]]:
    """The F1 to be expected of a span by its energy, as at most KNOTS knots."""
    x, y = decreasing_fit(E, f1)
    at = np.quantile(E, np.linspace(0, 1, KNOTS))
    at = np.unique(np.round(at, 6))
    return {
        "E_norm": [float(v) for v in at],
        "quality": [round(float(v), 4) for v in np.interp(at, x, y)],
    }


def manifest(recipe: Recipe, models: Path, chosen: dict[str, Any]) -> dict[str, Any]:
    """Describe a reader: everything that the service needs to run and to trust it."""
    net = recipe.net
    files = [models / name for name in ("step.onnx", "energy.onnx", "tokenizer.json")]
    macs = net.layers * net.length * (4 * net.width**2 + 2 * net.width * net.feed_forward)
    macs += net.layers * 2 * net.length**2 * net.width
    return {
        "format": 1,
        "name": recipe.name,
        "version": recipe.version,
        "task": "extractive_question_answering",
        "language": "English",
        "windows": {
            "pieces": net.window_pieces,
            "stride": net.stride,
            "question_pieces": net.question_pieces,
            "rows": WINDOWS,
        },
        "width": net.width,
        "marks": {"cls": 2, "sep": 3, "unknown": 1},
        **chosen,
        "macs": {"step": macs},
        "licence": recipe.licence,
        "seed": recipe.train.seed,
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }


def write(models: Path, described: dict[str, Any]) -> None:
    """Write ``manifest.json``."""
    (models / "manifest.json").write_text(json.dumps(described, indent=2) + "\n")


def main() -> None:
    """Read the command line and write ``manifest.json`` beside the graphs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the recipe, a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="the folder with the recipe's files")
    parser.add_argument("--models", type=Path, required=True, help="the folder with the exported files")
    parser.add_argument("--questions", type=int, default=600, help="to fit with; a third more are elsewhere")
    parser.add_argument("--cache", type=Path, required=True, help="the folder where the reads are kept")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    recipe = load_recipe(args.config)
    data = recipe.data
    apart = load_library(
        args.data / data.train, kept_apart=True, share=data.calibration_share, mixed=data.mixed
    )
    library, foreign = halves(apart)
    own = drawn(library.questions, args.questions, 0)
    other = drawn(foreign.questions, args.questions // 3, 1)

    def read(chosen: dict[str, Any]) -> tuple[Reads, Reads]:
        write(args.models, manifest(recipe, args.models, chosen))
        plugin = open_plugin(args.models, args.threads)
        return (
            read_all(plugin, library, own, args.cache / "calibration.npz"),
            read_all(plugin, library, other, args.cache / "calibration-other.npz"),
        )

    chosen = START | fit_posterior(*read(START))
    found, _ = read(chosen)
    target = choose_target(found)
    paths = follow(found, target)
    chosen |= {
        "halting": {"target_E_norm": target, **HALTING},
        "trust": trust_table(paths.E[:, 1:].ravel(), paths.f1[:, 1:].ravel()),
        "calibrated_on": {
            "questions": len(own),
            "other": len(other),
            "articles": sorted(set(library.articles)),
        },
    }
    write(args.models, manifest(recipe, args.models, chosen))


if __name__ == "__main__":
    main()
