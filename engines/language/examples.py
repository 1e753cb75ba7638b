"""Examples of training: a question, a window, and where in it the answer is, if it is there."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engines.language.config import NetConfig, TrainConfig
from engines.language.data import Library, Question
from sage_edge.plugins.language.glance import index_of, stems_of
from sage_edge.plugins.language.windows import Int32, Pieces, WindowSize, pieces_of, windows_of

CLS, SEP = 2, 3
#: How many windows BM25 may offer as wrong ones, of each question.
WRONG = 6


@dataclass(frozen=True)
class Examples:
    """All that examples are drawn from.

    Attributes:
        questions: int32 arrays of pieces, one for each question.
        texts: int32 arrays of pieces, one for each paragraph.
        at: The paragraph, first and last piece of the answer, int32 [n, 3], by question.
        wrong: int32 [n, WRONG, 2], windows (paragraph, first piece) without the answer, -1 where there is
        none.
        sentences: How many of the questions, the last ones, are of sentences.
    """

    questions: Sequence[Int32]
    texts: Sequence[Int32]
    at: Int32
    wrong: Int32
    sentences: int


def load_sentences(path: Path) -> Library:
    """Load sentences with their questions, of QAMR's form: those whose first answer occurs once."""
    sentences, questions = [], []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            for asked in entry["qas"]:
                answers = tuple(answer for answer in asked["answers"] if answer)
                if answers and entry["sentence"].count(answers[0]) == 1:
                    start = entry["sentence"].index(answers[0])
                    questions.append(Question(asked["question"], len(sentences), start, answers, entry["id"]))
            sentences.append(entry["sentence"])
    return Library(tuple(sentences), tuple(sentences), tuple(questions))


def make_examples(
    tokenizer: Tokenizer, library: Library, sentences: Library | None, net: NetConfig
) -> Examples:
    """Cut everything into pieces, and find each question's wrong windows within its article."""
    pieces = pieces_of(tokenizer, library.paragraphs)
    asked = _each(pieces_of(tokenizer, [question.text for question in library.questions]))
    at = spans_of(library, pieces)
    wrong = _wrong_windows(library, pieces, asked, net, stems_of(tokenizer.get_vocab()))
    texts = _each(pieces)
    kept = np.flatnonzero(at[:, 2] - at[:, 1] < net.span_pieces)
    questions, at, wrong = [asked[n] for n in kept], at[kept], wrong[kept]
    if sentences is None:
        return Examples(questions, texts, at, wrong, 0)
    more = pieces_of(tokenizer, sentences.paragraphs)
    more_at = spans_of(sentences, more)
    more_at[:, 0] += len(texts)
    more_asked = _each(pieces_of(tokenizer, [question.text for question in sentences.questions]))
    none = np.full((len(more_at), WRONG, 2), -1, np.int32)
    return Examples(
        [*questions, *more_asked],
        [*texts, *_each(more)],
        np.concatenate([at, more_at]),
        np.concatenate([wrong, none]),
        len(more_at),
    )


def spans_of(library: Library, pieces: Pieces) -> Int32:
    """The paragraph, and the first and last piece in it, of each question's answer: int32 [questions, 3]."""
    found = np.empty((len(library.questions), 3), np.int32)
    for number, question in enumerate(library.questions):
        inside = slice(pieces.firsts[question.paragraph], pieces.firsts[question.paragraph + 1])
        end = question.start + len(question.answers[0])
        first = np.searchsorted(pieces.ends[inside], question.start, side="right")
        last = max(first, np.searchsorted(pieces.starts[inside], end, side="left") - 1)
        found[number] = question.paragraph, first, last
    return found


def _each(pieces: Pieces) -> list[Int32]:
    return np.split(pieces.ids, pieces.firsts[1:-1])


def _wrong_windows(
    library: Library, pieces: Pieces, asked: Sequence[Int32], net: NetConfig, stems: Int32
) -> Int32:
    found = np.full((len(asked), WRONG, 2), -1, np.int32)
    by_article: dict[str, list[int]] = {}
    for number, title in enumerate(library.articles):
        by_article.setdefault(title, []).append(number)
    of_article: dict[str, list[int]] = {}
    for number, question in enumerate(library.questions):
        of_article.setdefault(question.article, []).append(number)
    for title, numbers in of_article.items():
        own = by_article[title]
        part = _chosen(pieces, own)
        windows = windows_of(part, WindowSize(net.window_pieces, net.stride))
        index = index_of(part, windows, stems)
        where = np.searchsorted(part.firsts, windows[:, 0], side="right") - 1
        texts = [library.paragraphs[n].lower() for n in own]
        for number in numbers:
            answers = [answer.lower() for answer in library.questions[number].answers]
            ranked = np.argsort(-index.scores(asked[number]), kind="stable")[: 3 * WRONG]
            wrong = [k for k in ranked if not any(answer in texts[where[k]] for answer in answers)][:WRONG]
            for slot, k in enumerate(wrong):
                found[number, slot] = own[where[k]], windows[k, 0] - part.firsts[where[k]]
    return found


def _chosen(pieces: Pieces, passages: Sequence[int]) -> Pieces:
    parts = [np.arange(pieces.firsts[n], pieces.firsts[n + 1]) for n in passages]
    at = np.concatenate(parts)
    firsts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int32)
    return Pieces(pieces.ids[at], pieces.starts[at], pieces.ends[at], firsts)


@dataclass(frozen=True)
class Batch:
    """Examples side by side: ``ids`` int64 [n, T], ``begin`` int64 [n], ``first`` and ``last`` int64 [n].

    ``first`` and ``last`` are 0 where the window does not answer.
    """

    ids: NDArray[np.int64]
    begin: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]


def draw(examples: Examples, net: NetConfig, train: TrainConfig, group: int) -> list[Batch]:
    """Draw the batches of a group, sorted by length, in random order."""
    rng = np.random.default_rng([train.seed, group])
    count = train.batch * train.bucket
    documents = len(examples.questions) - examples.sentences
    order = _order(group * count, count, documents, train.seed)
    of_sentences = rng.random(count) < train.sentence_share * (examples.sentences > 0)
    chosen = np.where(of_sentences, documents + rng.integers(max(examples.sentences, 1), size=count), order)
    rows = sorted((_row(examples, int(n), net, train, rng) for n in chosen), key=lambda row: len(row[0]))
    batches = [_together(rows[at : at + train.batch]) for at in range(0, count, train.batch)]
    return [batches[n] for n in rng.permutation(len(batches))]


def _order(start: int, count: int, total: int, seed: int) -> NDArray[np.int64]:
    """Members of a permutation for each epoch: every example once an epoch."""
    places = np.arange(start, start + count)
    orders = {
        epoch: np.random.default_rng([seed, 1, epoch]).permutation(total) for epoch in set(places // total)
    }
    return np.array([orders[place // total][place % total] for place in places])


def _row(
    examples: Examples, number: int, net: NetConfig, train: TrainConfig, rng: np.random.Generator
) -> tuple[list[int], int, int, int]:
    question = examples.questions[number][: net.question_pieces].tolist()
    passage, first, last = (int(n) for n in examples.at[number])
    length = int(rng.integers(train.shortest_window, net.window_pieces + 1))
    wrong = examples.wrong[number]
    wrong = wrong[wrong[:, 0] >= 0]
    is_null = len(wrong) > 0 and rng.random() < train.null_share
    if is_null:
        passage, start = (int(n) for n in wrong[rng.integers(len(wrong))])
    else:
        length = max(length, last - first + 1)
        start = int(rng.integers(max(0, last + 1 - length), first + 1))
        start = max(0, min(start, len(examples.texts[passage]) - length))
    window = examples.texts[passage][start : start + length].tolist()
    begin = len(question) + 2
    ids = [CLS, *question, SEP, *window, SEP]
    if is_null:
        return ids, begin, 0, 0
    return ids, begin, begin + first - start, begin + last - start


def _together(rows: Sequence[tuple[list[int], int, int, int]]) -> Batch:
    ids = np.zeros((len(rows), max(len(row[0]) for row in rows)), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row[0])] = row[0]
    begin, first, last = (np.array([row[part] for row in rows], np.int64) for part in (1, 2, 3))
    return Batch(ids, begin, first, last)
