"""Questions with their articles, from files of the form of SQuAD 1.1."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Question:
    """A question, where it is answered, and how.

    Attributes:
        text: Its words.
        paragraph: Which paragraph answers it, by its place in the library.
        start: The first code point of the first answer in that paragraph.
        answers: All answers that count as right; the first stands at ``start``.
        article: What the paragraph is from: questions of one article are no independent draws.
    """

    text: str
    paragraph: int
    start: int
    answers: tuple[str, ...]
    article: str


@dataclass(frozen=True)
class Library:
    """Paragraphs that questions are asked of, all of them at once; ``articles`` names that of each."""

    paragraphs: tuple[str, ...]
    articles: tuple[str, ...]
    questions: tuple[Question, ...]


def is_kept_apart(title: str, share: float) -> bool:
    """Whether an article is for calibration: by its hash, for good."""
    return int.from_bytes(hashlib.sha256(title.encode()).digest()[:8], "big") / 2**64 < share


def load_library(
    path: Path, *, kept_apart: bool | None = None, share: float = 0.0, mixed: str = ""
) -> Library:
    """Load the articles of a file.

    Args:
        path: JSON of SQuAD's form, gzipped.
        kept_apart: Only the articles for calibration, or only the others; None takes all.
        share: Of the articles that are for calibration.
        mixed: A title that is no article but paragraphs of many; never kept apart.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    paragraphs, titles, questions = [], [], []
    for article in articles:
        title = article["title"]
        apart = title != mixed and is_kept_apart(title, share)
        if kept_apart is not None and apart != kept_apart:
            continue
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                right = asked["answers"]
                answers = tuple(dict.fromkeys(answer["text"] for answer in right))
                start = right[0]["answer_start"]
                questions.append(Question(asked["question"], len(paragraphs), start, answers, title))
            paragraphs.append(paragraph["context"])
            titles.append(title)
    return Library(tuple(paragraphs), tuple(titles), tuple(questions))
