"""What the language plugin is sent: a question with a text, a list of passages, or the id of a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Any, ClassVar

import numpy as np

from sage_edge.errors import ProblemError
from sage_edge.inputs import JSON_TYPE, TEXT, InputKind, Limits, Part, parse_json
from sage_edge.irp.engine import Float32
from sage_edge.plugins.language.model import FACTS, LanguageModel
from sage_edge.plugins.language.texts import Text, TextStore

MOST_WORDS = 64
MOST_PASSAGES = 4096
_KEYS = ("question", "text", "text_id")


class QuestionKind(InputKind):
    """A question with its text; a text file is a text without a question."""

    name = "question with its text"
    key = "problem"
    suffixes: ClassVar[Mapping[str, str]] = {".json": JSON_TYPE, **TEXT.suffixes}
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "question": {"type": "string", "minLength": 1},
            "text": {
                "oneOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MOST_PASSAGES},
                ]
            },
            "text_id": {"type": "string", "minLength": 1, "description": "of a text that was sent before"},
        },
    }
    example: ClassVar[Any] = {
        "question": "What torque do the M6 bolts take?",
        "text": "Tighten the M6 bolts to 9 newton metres.",
    }

    def from_part(self, part: Part, limits: Limits) -> Mapping[str, Any]:
        """The object of a JSON file, or ``{"text": …}`` of a text in UTF-8.

        Raises:
            InputError: The bytes are neither.
        """
        is_named = part.media_type in TEXT.media_types
        if part.media_type == JSON_TYPE or (not is_named and part.content[:64].lstrip().startswith(b"{")):
            return self.from_json(parse_json(part.content, "problem", ProblemError), limits)
        return {"text": TEXT.from_part(part, limits)}

    def from_json(self, value: Any, limits: Limits) -> Mapping[str, Any]:
        """The object itself.

        Raises:
            ProblemError: The value is no object, or has a key that means nothing here.
        """
        if not isinstance(value, dict):
            raise ProblemError(f"problem: expected an object, got {shown(value)}")
        if unknown := sorted(set(value) - set(_KEYS)):
            raise ProblemError(f"problem: expected the keys {', '.join(_KEYS)}, got {shown(unknown)}")
        return value


QUESTION = QuestionKind()


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of a text, and where its answer may be.

    Attributes:
        question: As it was asked; empty where a text came without one.
        text: What is asked.
        windows: The candidates' numbers in the text, the likeliest first: as many as rows, or all.
        ids: float32 [rows, length], the reader's input of each; 0 where there is nothing.
        prior: float32 [rows], how likely each is to answer, before anything is read; 0 where there is none.
        place: float32 [rows], the piece of the text that stands at the beginning of each row's input.
        facts: float32 [6], what the graphs know beside: where windows begin, the prior of an answer in
            none of the candidates, slope and offset of the evidence, how much a span's share counts, and the
            energy up to which a run would be confident.
        nowhere: The prior of the text not answering.
        unknown_share: Of the question's pieces, those that are none of the vocabulary.
    """

    question: str
    text: Text
    windows: tuple[int, ...]
    ids: Float32
    prior: Float32
    place: Float32
    facts: Float32
    nowhere: float
    unknown_share: float

    @property
    def sharpness(self) -> float:
        """How much a span's share of the reader's softmax counts."""
        return float(self.facts[4])


def read_problem(problem: Mapping[str, Any], model: LanguageModel, store: TextStore, default: str) -> Asked:
    """Check a document, read its text and glance at it.

    Args:
        problem: What QUESTION makes of an input.
        model: The reader.
        store: Keeps the texts.
        default: What is asked where no question comes along; empty for nothing.

    Raises:
        InputError: It cannot be used; the message says what was expected and what came.
    """
    question = _question(problem.get("question", default or None))
    text = _text(problem, store)
    return glance(question, text, model) if question else _kept(text, model)


def glance(question: str, text: Text, model: LanguageModel) -> Asked:
    """Find the windows that are worth reading: by BM25, without any network.

    Raises:
        ProblemError: The question has no word.
    """
    pieces = model.tokenizer.encode(question, add_special_tokens=False).ids[: model.question_pieces]
    if not pieces:
        raise ProblemError("question: expected words, got none")
    scores = model.beta * text.index.scores(np.array(pieces, np.int32)).astype(np.float64)
    odds = np.exp(scores - scores.max())
    chosen = np.argsort(-scores, kind="stable")[: model.rows]
    unknown_share = pieces.count(model.unknown) / len(pieces)
    # What cannot be read cannot be found: a question that is unknown by half has no answer.
    told = (1 - model.nowhere) * max(0.0, 1 - 2 * unknown_share)
    prior = np.zeros(model.rows, np.float32)
    prior[: len(chosen)] = told * odds[chosen] / odds.sum()
    begin = len(pieces) + 2
    ids, place = np.zeros((model.rows, model.length), np.float32), np.zeros(model.rows, np.float32)
    for row, window in enumerate(chosen):
        first, end = text.windows[window]
        ids[row, : begin + end - first + 1] = [
            model.cls, *pieces, model.sep, *text.pieces.ids[first:end], model.sep
        ]  # fmt: skip
        place[row] = first - begin
    rest = 1 - prior.sum(dtype=np.float64)
    limit = model.halting.target_E_norm
    facts = np.array([begin, rest, model.slope, model.offset, model.sharpness, limit], np.float32)
    return Asked(question, text, tuple(chosen.tolist()), ids, prior, place, facts, 1 - told, unknown_share)


def _kept(text: Text, model: LanguageModel) -> Asked:
    """A text of which nothing is asked: all that there is to know is known."""
    ids, place = np.zeros((model.rows, model.length), np.float32), np.zeros(model.rows, np.float32)
    known = np.zeros(model.rows, np.float32)
    known[0] = 1.0
    return Asked("", text, (), ids, known, place, np.zeros(FACTS, np.float32), 0.0, 0.0)


def _question(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ProblemError(f"question: expected a string, got {shown(value)}")
    words = len(value.split())
    if not 0 < words <= MOST_WORDS:
        raise ProblemError(f"question: expected 1 to {MOST_WORDS} words, got {words}")
    return _unicode("question", value)


def _text(problem: Mapping[str, Any], store: TextStore) -> Text:
    if ("text" in problem) == ("text_id" in problem):
        raise ProblemError(f"problem: expected text or text_id, got {shown(sorted(problem))}")
    if "text_id" in problem:
        if not isinstance(problem["text_id"], str):
            raise ProblemError(f"text_id: expected a string, got {shown(problem['text_id'])}")
        return store.by_id(problem["text_id"])
    text = problem["text"]
    passages = [text] if isinstance(text, str) else text
    if not isinstance(passages, list) or not all(isinstance(passage, str) for passage in passages):
        raise ProblemError(f"text: expected a string or a list of strings, got {shown(text)}")
    if len(passages) > MOST_PASSAGES:
        raise ProblemError(f"text: expected at most {MOST_PASSAGES} passages, got {len(passages)}")
    return store.text(tuple(_unicode("text", passage) for passage in passages))


def _unicode(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise ProblemError(f"{name}: expected Unicode, got half a surrogate pair at {exc.start}") from exc
    return value
