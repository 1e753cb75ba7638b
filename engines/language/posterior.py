"""The posterior after every read, for many questions at once: which span would answer, and its energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.language.reads import READS, Reads
from sage_edge.plugins.language.state import EVIDENCE, FIRST, LAST, MARK, MEANING, SHARE

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Paths:
    """What N questions go through from no read to READS of them; step 0 is before the first.

    Attributes:
        doubt: float64 [N, READS + 1], one minus the posterior of the likeliest span.
        E: float64 [N, READS + 1].
        row: int64 [N, READS + 1], the row whose span would answer; -1 before the first read.
        is_told: bool [N, READS + 1], whether it would: not where no answer is likelier.
        em, f1: float64 [N, READS + 1], of what would be answered; no answer has 0.
        meaning: float32 [N, READS + 1, width], the meaning latents.
    """

    doubt: Floats
    E: Floats
    row: Ints
    is_told: NDArray[np.bool_]
    em: Floats
    f1: Floats
    meaning: NDArray[np.float32]


def follow(reads: Reads, limit: float | None = None) -> Paths:
    """Weigh the reads as the plugin does.

    Args:
        reads: What was found.
        limit: The energy up to which a run is confident, instead of the reader's own.
    """
    count, width = len(reads), reads.z.shape[2] - MEANING
    doubt, row = np.ones((count, READS + 1)), np.full((count, READS + 1), -1)
    is_told = np.zeros((count, READS + 1), bool)
    meaning = np.zeros((count, READS + 1, width), np.float32)
    prior = np.stack([asked.prior for asked in reads.asked]).astype(np.float64)
    nowhere = np.array([asked.nowhere for asked in reads.asked])
    places = np.stack([asked.place[:READS] for asked in reads.asked])
    first, last = places + reads.z[:, :, FIRST], places + reads.z[:, :, LAST]
    same = (first[:, :, None] == first[:, None, :]) & (last[:, :, None] == last[:, None, :])
    window = np.where(reads.z[:, :, MARK] > 0.5, prior[:, :READS] * np.exp(reads.z[:, :, EVIDENCE]), 0.0)
    sharpness = np.array([asked.sharpness for asked in reads.asked])
    weight = window * np.exp(sharpness[:, None] * reads.z[:, :, SHARE])
    for step in range(1, READS + 1):
        seen = np.arange(READS) < step
        read = weight * seen
        of_span = (same * read[:, None, :]).sum(2) * (read > 0)
        total = (window * seen).sum(1) + 1 - prior[:, :step].sum(1)
        best = of_span.argmax(1)
        share = of_span[np.arange(count), best] / total
        own = same[np.arange(count), best] * read
        doubt[:, step], row[:, step], is_told[:, step] = 1 - share, own.argmax(1), share > nowhere / total
        mean = np.einsum("nr,nrd->nd", read, reads.z[:, :, MEANING:])
        meaning[:, step] = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    numbers = np.arange(count)[:, None]
    em, f1 = (np.where(is_told, kept[numbers, np.maximum(row, 0)], 0.0) for kept in (reads.em, reads.f1))
    limits = np.array([asked.facts[5] if limit is None else limit for asked in reads.asked], np.float64)
    offered = (prior > 0).sum(1, keepdims=True)
    left = np.maximum(offered - np.arange(READS + 1), 0)
    E = energy_of(doubt, left, offered, limits[:, None])
    return Paths(doubt, E, row, is_told, em, f1, meaning)


def energy_of(doubt: Floats, left: Ints, offered: Ints, limit: Floats) -> Floats:
    """The doubt itself up to the limit; above it by the windows that are left, then by the doubt."""
    unsure = limit + (1 - limit) * (left + doubt) / (offered + 1)
    return np.where(doubt <= limit, doubt, unsure)


def halting_steps(E: Floats, target: float, K: int, eps: float, most: int = READS) -> Ints:
    """Where each run would halt: energy at most ``target``, or the range of the last K + 1 below ``eps``."""
    steps = np.full(len(E), most)
    for step in range(most - 1, -1, -1):
        flat = np.ptp(E[:, step - K : step + 1], axis=1) < eps if step >= K else np.zeros(len(E), bool)
        steps = np.where((E[:, step] <= target) | flat, step, steps)
    return steps


def answer_steps(E: Floats, halted: Ints) -> Ints:
    """The answer of each run: its state of lowest energy up to the halt."""
    seen = np.arange(E.shape[1]) <= halted[:, None]
    found: Ints = np.where(seen, E, np.inf).argmin(1)
    return found
