"""The glance: which windows of a text are worth reading for a question, by BM25 over word pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sage_edge.plugins.language.windows import Int32, Pieces

K1, B = 1.2, 0.75
#: Endings that a word may lose, the longest first, and how many letters have to stay.
_ENDINGS = ("ations", "ation", "ings", "edly", "ing", "ies", "ed", "es", "er", "ly", "s", "e", "y")
_LEAST_STEM = 3


@dataclass(frozen=True, slots=True)
class Index:
    """The inverted index of a text's windows.

    Attributes:
        stems: int32 [vocabulary], the number of each piece's stem: what counts as one term.
        terms: int32 [t], the stems that occur, ascending.
        firsts: int64 [t + 1], where the entries of each begin.
        windows: int32 [entries], the windows that have the term.
        weights: float32 [entries], what the term adds to the window's score.
        count: How many windows there are.
    """

    stems: Int32
    terms: Int32
    firsts: NDArray[np.int64]
    windows: Int32
    weights: NDArray[np.float32]
    count: int

    @property
    def size_bytes(self) -> int:
        """What the arrays hold."""
        return sum(part.nbytes for part in (self.terms, self.firsts, self.windows, self.weights))

    def scores(self, question: Int32) -> NDArray[np.float32]:
        """BM25 of every window, float32 [count]; a stem that the question's pieces repeat counts once."""
        found = np.zeros(self.count, np.float32)
        places = np.searchsorted(self.terms, wanted := np.unique(self.stems[question]))
        for term, place in zip(wanted, places, strict=True):
            if place < len(self.terms) and self.terms[place] == term:
                entries = slice(self.firsts[place], self.firsts[place + 1])
                found[self.windows[entries]] += self.weights[entries]
        return found


def stems_of(vocabulary: Mapping[str, int]) -> Int32:
    """The number of the stem of every piece; the first piece of a stem numbers it."""
    stems = np.empty(len(vocabulary), np.int32)
    numbers: dict[str, int] = {}
    for piece, number in sorted(vocabulary.items(), key=lambda entry: entry[1]):
        stems[number] = numbers.setdefault(_stem(piece), number)
    return stems


def _stem(piece: str) -> str:
    """A word without its ending; a piece that is no whole word stays as it is."""
    if not piece.startswith("##"):
        for ending in _ENDINGS:
            if piece.endswith(ending) and len(piece) >= len(ending) + _LEAST_STEM:
                return piece.removesuffix(ending)
    return piece


def index_of(pieces: Pieces, windows: Int32, stems: Int32) -> Index:
    """Make the index of a text's windows."""
    lengths = (windows[:, 1] - windows[:, 0]).astype(np.int64)
    owner = np.repeat(np.arange(len(windows)), lengths)
    inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    terms = stems[pieces.ids[windows[owner, 0] + inside]].astype(np.int64)
    keys, counts = np.unique(terms * len(windows) + owner, return_counts=True)
    of_term, of_window = keys // len(windows), keys % len(windows)
    known, firsts, spread = np.unique(of_term, return_index=True, return_counts=True)
    rarity = np.log1p((len(windows) - spread + 0.5) / (spread + 0.5))
    saturated = counts * (K1 + 1) / (counts + K1 * (1 - B + B * lengths[of_window] / lengths.mean()))
    return Index(
        stems,
        known.astype(np.int32),
        np.append(firsts, len(keys)),
        of_window.astype(np.int32),
        (np.repeat(rarity, spread) * saturated).astype(np.float32),
        len(windows),
    )
