"""BM25 over windows, beside the formula written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.plugins.language.glance import K1, B, index_of, stems_of
from sage_edge.plugins.language.windows import Pieces


def text_of(windows):
    """Windows of pieces as a text whose passages they are."""
    firsts = np.concatenate([[0], np.cumsum([len(window) for window in windows])]).astype(np.int32)
    ids = np.array([piece for window in windows for piece in window], np.int32)
    pieces = Pieces(ids, ids, ids, firsts)
    return pieces, np.stack([firsts[:-1], firsts[1:]], axis=1)


def plain_bm25(windows, question):
    """Okapi BM25 with the rarity that is never negative."""
    mean = sum(map(len, windows)) / len(windows)
    scores = []
    for window in windows:
        score = 0.0
        for term in set(question):
            holders = sum(term in other for other in windows)
            rarity = math.log(1 + (len(windows) - holders + 0.5) / (holders + 0.5))
            count = window.count(term)
            score += rarity * count * (K1 + 1) / (count + K1 * (1 - B + B * len(window) / mean))
        scores.append(score)
    return scores


windows = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=8)


@given(windows, st.lists(st.integers(0, 12), min_size=1, max_size=6))
def test_scores_are_those_of_the_formula(found, question):
    index = index_of(*text_of(found), np.arange(13, dtype=np.int32))
    scores = index.scores(np.array(question, np.int32))
    assert scores == pytest.approx(plain_bm25(found, question), rel=1e-5, abs=1e-6)


def test_the_window_with_the_rare_word_is_first():
    index = index_of(*text_of([[1, 2, 3], [1, 2, 4], [1, 2, 3]]), np.arange(5, dtype=np.int32))
    assert index.scores(np.array([1, 4], np.int32)).argmax() == 1
    assert index.size_bytes > 0


def test_words_of_one_stem_are_one_term_and_pieces_of_words_stay():
    words = ["weigh", "weighs", "weighed", "weighing", "bolt", "bolts"]
    words += ["bus", "##s", "##bolts", "the", "thing"]
    stems = stems_of({word: number for number, word in enumerate(words)})
    assert stems.tolist() == [0, 0, 0, 0, 4, 4, 6, 7, 8, 9, 10]
    index = index_of(*text_of([[0, 9], [5, 9], [8, 9]]), stems)
    assert index.scores(np.array([3], np.int32)).argmax() == 0
    assert np.count_nonzero(index.scores(np.array([4], np.int32))) == 1
