"""What the language plugin takes, and what it refuses."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.errors import ConfigError, FrameError, InputError, ProblemError
from sage_edge.inputs import Limits, Part
from sage_edge.plugins.language import LanguagePlugin
from sage_edge.plugins.language.questions import QUESTION
from tests.fake_reader import LENGTH, ROWS, fake_plugin

LIMITS = Limits(max_pixels=1, max_bytes=1 << 20)
TEXT = "Tighten the bolts to 9 newton metres."


@pytest.fixture(scope="module")
def plugin():
    return fake_plugin({"9": 5.0})


def test_the_example_is_valid_under_the_schema_and_is_taken(plugin):
    jsonschema.Draft202012Validator.check_schema(QUESTION.schema)
    jsonschema.validate(QUESTION.example, QUESTION.schema)
    assert plugin.prepare(QUESTION.example).question == QUESTION.example["question"]


@pytest.mark.parametrize(
    ("content", "media_type", "expected"),
    [
        (b'{"question": "a?", "text": "b"}', "application/json", {"question": "a?", "text": "b"}),
        (b'{"question": "a?", "text": "b"}', "", {"question": "a?", "text": "b"}),
        ("größe".encode(), "text/plain", {"text": "größe"}),
        (b"\xef\xbb\xbf# Title", "text/markdown", {"text": "# Title"}),
        (b"plain", "", {"text": "plain"}),
        (b"{ is a brace", "text/plain", {"text": "{ is a brace"}),
    ],
)
def test_a_file_is_a_problem_or_a_text(content, media_type, expected):
    assert QUESTION.from_part(Part(content, media_type), LIMITS) == expected


@pytest.mark.parametrize(
    ("content", "media_type", "error", "words"),
    [
        (b"\xff\xfe", "text/plain", FrameError, "UTF-8"),
        (b"a\0b", "text/plain", FrameError, "NUL"),
        (b'{"text": ', "application/json", ProblemError, "not valid JSON"),
        (b"[1]", "application/json", ProblemError, "expected an object"),
        (b'{"text": "a", "questions": []}', "application/json", ProblemError, "questions"),
    ],
)
def test_a_file_that_is_neither_is_refused_with_words(content, media_type, error, words):
    with pytest.raises(error, match=words):
        QUESTION.from_part(Part(content, media_type), LIMITS)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ({"question": "", "text": TEXT}, "1 to 64 words, got 0"),
        ({"question": "  ", "text": TEXT}, "1 to 64 words, got 0"),
        ({"question": "why " * 65, "text": TEXT}, "1 to 64 words, got 65"),
        ({"question": 7, "text": TEXT}, "question: expected a string, got 7"),
        ({"question": "\x07\x1b", "text": TEXT}, "question: expected words"),
        ({"question": "a \ud800?", "text": TEXT}, "surrogate"),
        ({"question": "What?"}, "expected text or text_id"),
        ({"question": "What?", "text": TEXT, "text_id": "a"}, "expected text or text_id"),
        ({"question": "What?", "text": ""}, "text: expected words"),
        ({"question": "What?", "text": []}, "text: expected words"),
        ({"question": "What?", "text": [TEXT, 1]}, "a string or a list of strings"),
        ({"question": "What?", "text": {"a": TEXT}}, "a string or a list of strings"),
        ({"question": "What?", "text": ["a"] * 4097}, "at most 4096 passages, got 4097"),
        ({"question": "What?", "text": "\udc00"}, "surrogate"),
        ({"question": "What?", "text_id": "0" * 64}, "send the text again"),
        ({"question": "What?", "text_id": 5}, "text_id: expected a string"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_words(plugin, problem, words):
    with pytest.raises(InputError, match=words):
        plugin.prepare(problem)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries({}, optional={"question": json_values, "text": json_values, "text_id": json_values})
)
def test_any_document_is_taken_or_refused_as_input(problem):
    plugin = shared_fake()
    try:
        asked = plugin.prepare(QUESTION.from_json(json.loads(json.dumps(problem)), LIMITS))
    except InputError:
        return
    assert asked.ids.shape == (ROWS, LENGTH)


def shared_fake(made=[]):  # noqa: B006 - made once for all examples
    if not made:
        made.append(fake_plugin())
    return made[0]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=5), st.text(min_size=1, max_size=60))
def test_the_priors_of_the_windows_and_of_the_rest_are_one(passages, question):
    plugin = shared_fake()
    try:
        asked = plugin.prepare({"question": question, "text": passages})
    except InputError:
        return
    assert asked.prior.sum() + asked.facts[1] == pytest.approx(1.0, abs=1e-5)
    assert (np.diff(asked.prior) <= 1e-7).all()
    assert (asked.prior[len(asked.windows) :] == 0).all()
    assert asked.facts[1] >= asked.nowhere - 1e-5


def test_a_question_of_unknown_pieces_gives_no_window_a_chance(plugin):
    english, other, mixed = (
        plugin.prepare({"question": question, "text": TEXT})
        for question in ("What torque?", "קלמר אבג?", "What torque does אבג give here?")
    )
    assert (english.unknown_share, other.unknown_share) == (0.0, pytest.approx(2 / 3))
    assert 0 < mixed.unknown_share < 0.5
    assert english.nowhere < mixed.nowhere < other.nowhere == 1.0
    assert other.prior.sum() == 0


def test_a_long_question_is_read_to_its_limit(plugin):
    asked = plugin.prepare({"question": "bolts " * 64, "text": TEXT})
    assert asked.facts[0] == plugin.model.question_pieces + 2
    window = asked.ids[0]
    assert np.flatnonzero(window == plugin.model.sep).tolist() == [26, 26 + 1 + len(asked.text.pieces.ids)]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"question": 3}, "question"),
        ({"question": "word " * 65}, "question"),
        ({"text_mib": -1}, "text_mib"),
        ({"text_mib": 1.5}, "text_mib"),
        ({"text_mib": True}, "text_mib"),
        ({"model": "no such reader"}, "minilm"),
    ],
)
def test_a_setting_that_cannot_be_used_stops_the_start_with_its_name(config, words):
    with pytest.raises(ConfigError, match=words):
        LanguagePlugin(config).recipes("fp32")
