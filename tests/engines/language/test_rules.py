"""Rules that stop a reader, replayed: on the plugin's own states, beside plain loops."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.language.bootstrap import interval
from engines.language.data import Library, Question, load_library
from engines.language.posterior import answer_steps, follow, halting_steps
from engines.language.reads import READS, read_all
from engines.language.rules import at_mean, fixed, oracle, outcome, signals, stable_from
from sage_edge import native
from sage_edge.plugins.language.state import meaning_of, posterior_of
from sage_edge.quality import exact_match, token_f1
from tests.fake_reader import fake_plugin

PARAGRAPHS = (
    "The arm takes nine newton metres at its bolts. It must rest before that.",
    "The camera weighs eighty grams. The lens of the camera is not counted.",
    "Charge the battery for six hours. The battery must not be warm.",
    "The arm rests on three bolts. The camera hangs at the arm.",
)
QUESTIONS = (
    Question("What do the bolts of the arm take?", 0, 14, ("nine", "nine newton metres"), "arm"),
    Question("What does the camera weigh?", 1, 18, ("eighty grams",), "camera"),
    Question("How long to charge the battery?", 2, 23, ("six hours",), "battery"),
    Question("How many bolts does the arm rest on?", 3, 17, ("three",), "arm"),
)
LIBRARY = Library(PARAGRAPHS, ("arm", "camera", "battery", "arm"), QUESTIONS)
WORDS = {"nine": 3.0, "eighty": 2.5, "six": 2.0, "three": 2.8}


@pytest.fixture(scope="module")
def reads():
    return read_all(fake_plugin(WORDS, nothing=-1.0), LIBRARY, QUESTIONS)


def test_what_is_followed_is_what_the_plugin_went_through(reads):
    plugin, paths = fake_plugin(WORDS, nothing=-1.0), follow(reads)
    for number, question in enumerate(QUESTIONS):
        asked = plugin.prepare({"question": question.text, "text": list(PARAGRAPHS)})
        z, context, terms = plugin.encode([asked])
        for step in range(READS + 1):
            assert paths.E[number, step] == pytest.approx(terms[0, 0], abs=1e-5)
            posterior = posterior_of(z[0], asked.prior, asked.place, asked.nowhere, asked.sharpness)
            details = plugin.answers(z, [asked])[0].details
            assert paths.is_told[number, step] == (details["text"] is not None)
            assert paths.em[number, step] == exact_match(details["text"], question.answers)
            assert paths.f1[number, step] == pytest.approx(token_f1(details["text"], question.answers))
            if posterior.spans:
                np.testing.assert_allclose(
                    paths.meaning[number, step], meaning_of(z[0], asked.prior, asked.sharpness), atol=1e-5
                )
            delta, terms = plugin.advance(z, context, np.ones(1, np.float32))
            z = z + delta


energies = st.lists(st.lists(st.floats(0, 1), min_size=READS + 1, max_size=READS + 1), min_size=1, max_size=4)


@given(energies, st.floats(0, 0.9), st.integers(1, 5), st.floats(1e-4, 0.3))
def test_a_run_halts_where_the_compiled_rule_halts(E, target, K, eps):
    policy = native.HaltPolicy(target_E_norm=target, eps=eps, K=K, max_steps=READS)
    expected = [
        next(step for step in range(READS + 1) if native.halt_reason(run[: step + 1], policy)) for run in E
    ]
    assert halting_steps(np.array(E), target, K, eps).tolist() == expected


def test_every_rule_spends_what_it_says_and_none_beats_the_oracle(reads):
    paths = follow(reads)
    best = oracle(paths)
    every = outcome(paths, np.full(len(reads), READS))
    assert best.f1.mean() == paths.f1.max(axis=1).mean()
    for name, signal in signals(reads, paths).items():
        found = at_mean(paths, signal, 2.0)
        assert found.reads >= 2.0, name
        assert found.f1.mean() <= best.f1.mean() + 1e-12
    between = fixed(paths, 2.5)
    two, three = (outcome(paths, np.full(len(reads), step)) for step in (2, 3))
    np.testing.assert_allclose(between.f1, (two.f1 + three.f1) / 2)
    assert fixed(paths, float(READS)).f1.tolist() == every.f1.tolist()


def test_an_answer_is_stable_from_where_it_stays(reads):
    paths = follow(reads)
    for number, since in enumerate(stable_from(reads, paths, 0.99)):
        spans = [paths.row[number, step] for step in range(READS + 1)]
        near = [
            paths.meaning[number, step] @ paths.meaning[number, READS] >= 0.99 for step in range(READS + 1)
        ]
        stays = [near[step] and spans[step] == spans[READS] for step in range(READS + 1)]
        assert all(stays[since:])
        assert since == 1 or not stays[since - 1]


def test_the_state_of_lowest_energy_answers():
    E = np.array([[1.0, 0.3, 0.5, 0.2], [1.0, 0.4, 0.4, 0.4]])
    assert answer_steps(E, np.array([2, 3])).tolist() == [1, 1]


def test_an_interval_over_articles_is_wider_than_over_questions_that_go_together():
    rng = np.random.default_rng(0)
    of_article = np.repeat(rng.normal(size=20), 30)
    apart = interval(of_article, [str(n) for n in range(600)])
    together = interval(of_article, [str(n // 30) for n in range(600)])
    assert together[1] - together[0] > 3 * (apart[1] - apart[0])
    assert together[0] < of_article.mean() < together[1]


@pytest.mark.parametrize(
    ("answer", "right", "em", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1, 1),
        ("Eiffel", ["Eiffel Tower"], 0, 2 / 3),
        (None, ["x"], 0, 0),
        ("the", ["a"], 1, 1),
        ("x", ["the"], 0, 0),
        ("one two two", ["two two", "nine"], 0, 0.8),
    ],
)
def test_answers_are_compared_by_their_words(answer, right, em, f1):
    assert exact_match(answer, right) == em
    assert token_f1(answer, right) == pytest.approx(f1)


def test_articles_are_kept_apart_whole_and_for_good(tmp_path):
    data = {
        "data": [
            {
                "title": f"article {n}",
                "paragraphs": [
                    {
                        "context": "a b",
                        "qas": [{"question": "q?", "answers": [{"text": "a", "answer_start": 0}]}],
                    }
                ],
            }
            for n in range(200)
        ]
    }
    path = tmp_path / "data.json.gz"
    with gzip.open(path, "wt") as file:
        json.dump(data, file)
    apart, rest, everything = (load_library(path, kept_apart=part, share=0.2) for part in (True, False, None))
    assert not set(apart.articles) & set(rest.articles)
    assert len(apart.articles) + len(rest.articles) == len(everything.articles) == 200
    assert 20 < len(apart.articles) < 60
    assert load_library(path, kept_apart=True, share=0.2) == apart
    mixed = load_library(path, kept_apart=True, share=1.0, mixed="article 7")
    assert set(mixed.articles) == set(everything.articles) - {"article 7"}
    assert [question.paragraph for question in apart.questions] == list(range(len(apart.articles)))
