"""Measure a reader on the questions that nothing was fitted to, and write its card.

``python -m engines.language.report --config FILE --data DIR --models DIR --cache DIR``

Every question is asked of the whole library. All rules are replayed on the same reads.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from engines.language.bootstrap import interval
from engines.language.calibrate import drawn, halves
from engines.language.card import render
from engines.language.config import Recipe, load_recipe
from engines.language.data import load_library
from engines.language.posterior import Floats, Paths, answer_steps, follow, halting_steps
from engines.language.reads import READS, Reads, open_plugin, read_all
from engines.language.rules import (
    Outcome,
    at_mean,
    default_halt,
    fixed,
    oracle,
    outcome,
    signals,
    stable_from,
)
from sage_edge.plugins.language import LanguagePlugin
from sage_edge.plugins.language.state import SHARE
from sage_edge.quality import auroc, calibration_error

#: An answer has failed below this F1.
FAILS_BELOW = 0.5
#: An answer to a question that the text does not answer counts as confident above this trust.
CONFIDENT = 0.5
COSINE = 0.99
#: Pairs of a question and a text that does not answer it.
FOREIGN = 150


def measure(reads: Reads, described: dict[str, Any], plugin: LanguagePlugin) -> dict[str, Any]:
    """Every figure of the reads: the rules, the differences that are asked for, stability and trust."""
    paths, articles = follow(reads), reads.articles
    every = outcome(paths, np.full(len(reads), READS))
    halted = default_halt(paths, described["halting"])
    default = outcome(paths, halted)
    rules = {name: at_mean(paths, signal, default.reads) for name, signal in signals(reads, paths).items()}
    halting = described["halting"]
    flat = {
        f"slope, K = {K}": outcome(paths, halting_steps(paths.E, -1.0, K, halting["eps"])) for K in (1, 4)
    }
    after = [outcome(paths, np.full(len(reads), step)) for step in range(READS + 1)]
    same = fixed(paths, default.reads)
    last = Outcome(READS, paths.em[:, READS], paths.f1[:, READS])
    stable = stable_from(reads, paths, COSINE)
    return {
        "questions": len(reads),
        "articles": len(set(articles)),
        "fixed": [described_outcome(one, articles) for one in after],
        "all_reads": described_outcome(every, articles),
        "all_reads_last_state": described_outcome(last, articles),
        "default": described_outcome(default, articles),
        "fixed_at_same_mean": described_outcome(same, articles),
        "oracle": described_outcome(oracle(paths), articles),
        "rules_at_no_fewer_reads": {
            name: described_outcome(one, articles) for name, one in (rules | flat).items()
        },
        "differences": {
            "all_reads_minus_one": lead(every, after[1], articles),
            "default_minus_all_reads": lead(default, every, articles),
            "default_minus_fixed": lead(default, same, articles),
            **{f"default_minus_{name}": lead(default, one, articles) for name, one in rules.items()},
        },
        "reads_saved": READS / default.reads,
        "stable_by": [float((stable <= step).mean()) for step in range(READS + 1)],
        "cosine_by": [
            float(np.einsum("nd,nd->n", paths.meaning[:, step], paths.meaning[:, READS]).mean())
            for step in range(READS + 1)
        ],
        "em_f1_by_stability": by_stability(stable, paths),
        "trust": trust(reads, paths, halted, plugin),
        "no_answer_share": float((~paths.is_told[np.arange(len(reads)), halted]).mean()),
    }


def described_outcome(found: Outcome, articles: Any) -> dict[str, Any]:
    """An outcome as it stands in a report, in points."""
    return {
        "reads": found.reads,
        "EM": 100 * float(found.em.mean()),
        "F1": 100 * float(found.f1.mean()),
        "F1_interval": [100 * end for end in interval(found.f1, articles)],
    }


def lead(one: Outcome, other: Outcome, articles: Any) -> dict[str, Any]:
    """How far one is above another, in points, with 95 % intervals."""
    return {
        name: {"mean": 100 * float(gap.mean()), "interval": [100 * end for end in interval(gap, articles)]}
        for name, gap in (("EM", one.em - other.em), ("F1", one.f1 - other.f1))
    }


def by_stability(stable: Any, paths: Paths) -> list[dict[str, float]]:
    """EM and F1 after all reads, by the step from which on the answer stayed."""
    return [
        {
            "stable_from": step,
            "questions": int((stable == step).sum()),
            "EM": 100 * float(paths.em[stable == step, READS].mean()),
            "F1": 100 * float(paths.f1[stable == step, READS].mean()),
        }
        for step in range(1, READS + 1)
        if (stable == step).any()
    ]


def trust(reads: Reads, paths: Paths, halted: Any, plugin: LanguagePlugin) -> dict[str, Any]:
    """How well the trust of the answers at the default halt tells what they are worth."""
    rows = np.arange(len(reads))
    steps = answer_steps(paths.E, halted)
    energies, f1 = paths.E[rows, steps], paths.f1[rows, steps]
    claimed = np.array([plugin.trust(float(E)) for E in energies])
    softmax = np.exp(reads.z[rows, np.maximum(paths.row[rows, steps], 0), SHARE].astype(np.float64))
    failed = f1 < FAILS_BELOW
    return {
        "ECE": calibration_error(claimed, f1),
        "mean_trust": float(claimed.mean()),
        "AUROC_of_failure": {"trust": auroc(energies, failed), "span_softmax": auroc(-softmax, failed)},
        "failed_share": float(failed.mean()),
    }


def foreign(reads: Reads, described: dict[str, Any], plugin: LanguagePlugin) -> dict[str, Any]:
    """What is answered to questions that the text does not answer."""
    paths = follow(reads)
    halted = default_halt(paths, described["halting"])
    rows = np.arange(len(reads))
    steps = answer_steps(paths.E, halted)
    told = paths.is_told[rows, steps]
    claimed: Floats = np.array([plugin.trust(float(E)) for E in paths.E[rows, steps]])
    return {
        "questions": len(reads),
        "answered_share": float(told.mean()),
        "confident_share": float((told & (claimed > CONFIDENT)).mean()),
        "mean_trust": float(claimed.mean()),
        "mean_reads": float(halted.mean()),
    }


def milliseconds_a_read(plugin: LanguagePlugin, runs: int = 20) -> float:
    """The median time of one read of one question, in milliseconds."""
    z, context, _ = plugin.encode([plugin.example()])
    taken = []
    for _ in range(runs + 2):
        start_s = time.perf_counter()
        plugin.advance(z, context, np.ones(1, np.float32))
        taken.append(1e3 * (time.perf_counter() - start_s))
    return float(np.median(taken[2:]))


def main() -> None:
    """Read the command line, measure, and write ``metrics.json`` and ``MODEL_CARD.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the recipe, a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="the folder with the recipe's files")
    parser.add_argument("--models", type=Path, required=True, help="the folder of the reader")
    parser.add_argument("--cache", type=Path, required=True, help="the folder where the reads are kept")
    parser.add_argument("--questions", type=int, help="so many, drawn at random; all by default")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    recipe = load_recipe(args.config)
    plugin = open_plugin(args.models, args.threads)
    described = json.loads((args.models / "manifest.json").read_text())
    metrics = run(recipe, plugin, described, args.data, args.cache, args.questions)
    (args.models / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    (args.models / "MODEL_CARD.md").write_text(render(recipe, described, metrics))


def run(
    recipe: Recipe,
    plugin: LanguagePlugin,
    described: dict[str, Any],
    data: Path,
    cache: Path,
    questions: int | None,
) -> dict[str, Any]:
    """Read and measure."""
    library = load_library(data / recipe.data.dev)
    asked = drawn(library.questions, questions or len(library.questions), 2)
    metrics = measure(read_all(plugin, library, asked, cache / "dev.npz"), described, plugin)
    half, rest = halves(library)
    pairs = drawn(rest.questions, FOREIGN, 3)
    metrics["not_answered"] = foreign(
        read_all(plugin, half, pairs, cache / "dev-foreign.npz"), described, plugin
    )
    metrics["milliseconds_a_read"] = milliseconds_a_read(plugin)
    metrics["GMAC_a_read"] = described["macs"]["step"] / 1e9
    return metrics


if __name__ == "__main__":
    main()
