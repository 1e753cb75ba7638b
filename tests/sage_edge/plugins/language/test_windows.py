"""Texts as windows of pieces: every piece stands where it says, and every piece is in a window."""

from __future__ import annotations

import itertools
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from sage_edge.config import shared_file
from sage_edge.errors import FrameTooLargeError
from sage_edge.plugins.language.windows import Pieces, WindowSize, pieces_of, windows_of

TOKENIZER = Tokenizer.from_file(str(shared_file("engines/language/models/minilm/tokenizer.json")))
texts = st.text(st.characters(codec="utf-8"), max_size=80)


@given(st.lists(texts, max_size=5))
def test_pieces_are_in_order_and_stand_inside_their_passage(passages):
    pieces = pieces_of(TOKENIZER, passages)
    assert len(pieces.firsts) == len(passages) + 1
    for number, passage in enumerate(passages):
        own = slice(pieces.firsts[number], pieces.firsts[number + 1])
        starts, ends = pieces.starts[own], pieces.ends[own]
        assert (starts >= 0).all() and (starts <= ends).all() and (ends <= len(passage)).all()
        assert (np.diff(starts) >= 0).all()
        assert all(pieces.passage_of(piece) == number for piece in range(own.start, own.stop))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Tighten the bolts.", "bolts"),
        ("naïve Ünïcode bolts", "bolts"),
        ("👩‍🚀 bolts", "bolts"),
        ("x\u0301\u0301 bolts", "bolts"),
        ("שלום עולם bolts", "bolts"),
        ("漢字漢字bolts", "bolts"),
        ("\x07\x1b[0m bolts\u200b", "bolts"),
        ("İİİ Bolts", "Bolts"),
    ],
)
def test_offsets_are_code_points_of_the_text_that_was_sent(text, word):
    pieces = pieces_of(TOKENIZER, [text])
    wanted = TOKENIZER.encode(word, add_special_tokens=False).ids
    ids = pieces.ids.tolist()
    at = next(n for n in range(len(ids)) if ids[n : n + len(wanted)] == wanted)
    assert text[pieces.starts[at] : pieces.ends[at + len(wanted) - 1]] == word


def test_a_mark_in_a_text_is_read_as_the_characters_that_it_is():
    pieces = pieces_of(TOKENIZER, ["the [SEP] of [CLS] and [PAD]"])
    assert not set(pieces.ids.tolist()) & {0, 2, 3}


def test_a_long_text_is_cut_as_a_short_one_though_it_is_cut_in_parts():
    sentence = "The quick brown fox, aged 7, jumps over the lazy dog. "
    once, many = pieces_of(TOKENIZER, [sentence]), pieces_of(TOKENIZER, [sentence * 2000])
    assert len(many.ids) == 2000 * len(once.ids)
    assert (many.ids.reshape(2000, -1) == once.ids).all()
    expected = once.starts + len(sentence) * np.arange(2000)[:, None]
    np.testing.assert_array_equal(many.starts.reshape(2000, -1), expected)


def test_a_text_with_too_many_pieces_is_not_cut_to_its_end():
    with pytest.raises(FrameTooLargeError, match="at most 100 word pieces"):
        pieces_of(TOKENIZER, ["word " * 5_000_000], most=100)


def test_a_word_without_end_is_one_unknown_piece_or_a_few():
    pieces = pieces_of(TOKENIZER, ["a" * 100_000])
    assert len(pieces.ids) <= 4
    assert set(pieces.ids.tolist()) == {1}


@given(
    st.lists(st.integers(0, 300), max_size=6),
    st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))),
)
def test_windows_cover_all_pieces_and_none_spans_two_passages(lengths, size):
    pieces, stride = size
    firsts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    nothing = np.zeros(firsts[-1], np.int32)
    found = windows_of(Pieces(nothing, nothing, nothing, firsts), WindowSize(pieces, stride))
    covered = np.zeros(firsts[-1], bool)
    for start, end in found:
        assert 0 < end - start <= pieces
        passage = np.searchsorted(firsts, start, side="right") - 1
        assert end <= firsts[passage + 1]
        covered[start:end] = True
    assert covered.all()
    assert len({tuple(window) for window in found.tolist()}) == len(found)
    # No window is needless: each has a piece that the ones before it have not.
    for one, other in itertools.pairwise(found):
        assert other[1] > one[1]


def test_composed_and_decomposed_letters_are_the_same_pieces():
    composed, decomposed = (unicodedata.normalize(form, "Ünïcödé") for form in ("NFC", "NFD"))
    one, other = pieces_of(TOKENIZER, [composed]), pieces_of(TOKENIZER, [decomposed])
    assert one.ids.tolist() == other.ids.tolist()
