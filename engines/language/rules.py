"""Rules that stop a reader, replayed on the same reads: ours, its rivals, and an oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.language.posterior import Floats, Ints, Paths, answer_steps, halting_steps
from engines.language.reads import READS, Reads
from sage_edge.plugins.language.state import FIRST, LAST, weights_of

#: The margin of the rule that waits for an answer to repeat.
REPEAT_MARGIN = 0.25


@dataclass(frozen=True)
class Outcome:
    """What a rule costs and gives: mean reads, and EM and F1 of every question, float64 [N]."""

    reads: float
    em: Floats
    f1: Floats


def outcome(paths: Paths, halted: Ints) -> Outcome:
    """Of runs that halt there and answer with their state of lowest energy."""
    rows = np.arange(len(halted))
    steps = answer_steps(paths.E, halted)
    return Outcome(float(halted.mean()), paths.em[rows, steps], paths.f1[rows, steps])


def fixed(paths: Paths, mean: float) -> Outcome:
    """As many reads for every question; between two whole numbers what either gives, by its share."""
    low = int(mean)
    few, more = (outcome(paths, np.full(len(paths.E), min(step, READS))) for step in (low, low + 1))
    share = mean - low
    return Outcome(mean, few.em + share * (more.em - few.em), few.f1 + share * (more.f1 - few.f1))


def oracle(paths: Paths) -> Outcome:
    """Stops at the first state whose answer is as good as any: what no rule can reach."""
    return outcome_at(paths, paths.f1.argmax(axis=1))


def outcome_at(paths: Paths, steps: Ints) -> Outcome:
    """Of runs that are answered with the state at these steps."""
    rows = np.arange(len(steps))
    return Outcome(float(steps.mean()), paths.em[rows, steps], paths.f1[rows, steps])


def at_mean(paths: Paths, signal: Floats, mean: float) -> Outcome:
    """The rule "stop once the signal is high enough", at the mean that is asked for or just above.

    Args:
        paths: What the reads led to.
        signal: float64 [N, READS + 1].
        mean: Reads that the rule may spend at least: a rival is never given fewer than ours.
    """
    best: Outcome | None = None
    for threshold in np.unique(np.quantile(signal[:, 1:READS], np.linspace(0, 1, 401))):
        found = outcome(paths, first_above(signal, threshold))
        if found.reads >= mean and (best is None or found.reads < best.reads):
            best = found
    return best or outcome(paths, np.full(len(signal), READS))


def first_above(signal: Floats, threshold: float) -> Ints:
    """The first step, not before the first read, at which the signal reaches a threshold; else the last."""
    reached = signal[:, 1:] >= threshold
    steps: Ints = np.where(reached.any(1), reached.argmax(1) + 1, READS)
    return steps


def signals(reads: Reads, paths: Paths) -> dict[str, Floats]:
    """What the rules look at, rising with certainty: float64 [N, READS + 1] each."""
    shares = top_shares(reads)
    gap = shares[:, :, 0] - shares[:, :, 1]
    prior = np.stack([asked.prior[:READS] for asked in reads.asked]).astype(np.float64)
    seen = np.concatenate([np.zeros((len(reads), 1)), np.cumsum(prior, axis=1)], axis=1)
    repeated = np.zeros_like(gap)
    for step in range(2, READS + 1):
        same = answers_alike(reads, paths, step - 1, step)
        repeated[:, step] = np.where(same, gap[:, step], 0.0)
    return {"posterior": 1 - paths.doubt, "prior mass": seen, "answer repeats": repeated, "top-2 gap": gap}


def top_shares(reads: Reads) -> Floats:
    """The posterior of the two likeliest spans after each read: float64 [N, READS + 1, 2]."""
    found = np.zeros((len(reads), READS + 1, 2))
    for number, asked in enumerate(reads.asked):
        rows = reads.z[number]
        window, weight = weights_of(rows, asked.prior[:READS], asked.sharpness)
        spans = [(asked.place[r] + rows[r, FIRST], asked.place[r] + rows[r, LAST]) for r in range(READS)]
        for step in range(1, READS + 1):
            masses: dict[tuple[float, float], float] = {}
            for row in range(step):
                masses[spans[row]] = masses.get(spans[row], 0.0) + float(weight[row])
            total = float(window[:step].sum()) + 1 - float(asked.prior[:step].sum())
            best = sorted(masses.values(), reverse=True)[:2]
            found[number, step, : len(best)] = np.array(best) / total
    return found


def answers_alike(reads: Reads, paths: Paths, one: int, other: int) -> NDArray[np.bool_]:
    """Whether the likeliest span after ``one`` read is that after ``other``."""
    places = np.stack([asked.place[:READS] for asked in reads.asked])
    spans = np.stack([places + reads.z[:, :, FIRST], places + reads.z[:, :, LAST]], axis=2)
    rows = np.arange(len(reads))
    same: NDArray[np.bool_] = (spans[rows, paths.row[:, one]] == spans[rows, paths.row[:, other]]).all(axis=1)
    return same


def stable_from(reads: Reads, paths: Paths, cosine: float) -> Ints:
    """The step from which on the span is the last one, and the meaning latent as near to its last: [N]."""
    last = paths.meaning[:, READS]
    steps = np.full(len(reads), READS)
    holds = np.ones(len(reads), bool)
    for step in range(READS - 1, 0, -1):
        near = np.einsum("nd,nd->n", paths.meaning[:, step], last) >= cosine
        holds &= near & answers_alike(reads, paths, step, READS)
        steps = np.where(holds, step, steps)
    return steps


def default_halt(paths: Paths, halting: dict[str, float]) -> Ints:
    """Where runs end by the manifest's rule."""
    return halting_steps(paths.E, halting["target_E_norm"], int(halting["K"]), halting["eps"])
