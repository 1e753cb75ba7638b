"""The language plugin: what it reads, when it stops, and what it answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge import HRM, Budget, IRPState, Settings, refine
from sage_edge.plugins.check import check
from sage_edge.plugins.language.state import (
    EVIDENCE,
    FIRST,
    LAST,
    MARK,
    MEANING,
    SHARE,
    meaning_of,
    posterior_of,
)
from sage_edge.runtime import open_slots
from sage_edge.runtime.latent_slots import LatentSlots
from tests.fake_reader import COLUMNS, ROWS, FakeEnergy, energy_of, fake_plugin

MANUAL = [
    "Tighten the bolts of the arm to nine newton metres before the first run.",
    "The camera weighs eighty grams without its lens.",
    "Charge the battery for six hours. The arm must not move while it charges.",
]
TORQUE = "What torque for the bolts of the arm?"


def asked_of(plugin, question=TORQUE, text=MANUAL):
    return plugin.prepare({"question": question, "text": text})


def answered(plugin, question=TORQUE, text=MANUAL):
    return plugin.decode(refine(plugin, asked_of(plugin, question, text)).best).details


def test_the_span_is_quoted_from_where_it_stands():
    details = answered(fake_plugin({"nine": 8.0}))
    assert (details["text"], details["source"]) == ("nine", 0)
    assert MANUAL[0][details["start"] : details["end"]] == "nine"
    assert details["read"][0]["source"] == 0
    first = details["read"][0]
    assert MANUAL[0][first["start"] : first["end"]] == MANUAL[0]


def test_an_accent_behind_its_letter_is_quoted_with_it():
    text = "Die Schraube heisst caf" + "e\u0301 hier"
    details = answered(fake_plugin({"cafe": 8.0}), "Wie heisst die Schraube?", text)
    assert details["text"] == "caf" + "e\u0301"
    assert text[details["start"] : details["end"]] == details["text"]


def test_windows_are_read_once_each_the_likeliest_first():
    plugin = fake_plugin()
    asked = asked_of(plugin, text=[f"the bolts number {n}" for n in range(40)])
    z, context, _ = plugin.encode([asked])
    for _ in range(ROWS + 2):
        delta, terms = plugin.advance(z, context, np.ones(1, np.float32))
        z = z + delta
    reads = plugin.step_engine.reads
    assert sorted(reads) == list(range(ROWS))
    assert [asked.prior[row] for row in reads] == sorted(asked.prior, reverse=True)
    assert not delta.any()  # nothing is left to read
    assert terms == pytest.approx(plugin.energies(z, context))


def test_a_text_that_does_not_say_has_no_answer_and_tells_what_was_best():
    details = answered(fake_plugin(nothing=-9.0))
    assert details["text"] is details["start"] is details["end"] is details["source"] is None
    assert details["rivals"]
    assert details["nowhere"] > details["rivals"][0]["share"]


def test_before_anything_is_read_there_is_no_answer():
    plugin = fake_plugin({"nine": 8.0})
    state = plugin.init_state(asked_of(plugin))
    details = plugin.decode(state).details
    assert (details["text"], details["read"], details["rivals"]) == (None, [], [])
    assert plugin.energy(state) == pytest.approx(1.0)


def test_a_rival_is_told_with_its_share_and_raises_the_energy():
    plugin = fake_plugin({"nine": 8.0, "eighty": 9.0})
    asked = asked_of(plugin)
    z, context, _ = plugin.encode([asked])
    energies = []
    for _ in range(3):
        delta, terms = plugin.advance(z, context, np.ones(1, np.float32))
        z = z + delta
        energies.append(float(terms[0, 0]))
    details = plugin.answers(z, [asked])[0].details
    assert max(energies[1:]) > energies[0]
    told = {details["text"], *(rival["text"] for rival in details["rivals"])}
    assert {"nine", "eighty"} <= told
    shares = [details["share"], *(rival["share"] for rival in details["rivals"])]
    assert shares == sorted(shares, reverse=True)
    parts = [details[name] for name in ("nowhere", "unread", "others")]
    assert sum(shares) + sum(parts) == pytest.approx(1.0, abs=1e-5)


def test_windows_that_overlap_count_together_for_one_span():
    plugin = fake_plugin({"nine": 2.0})
    filler = "grey stones lie here " * 27
    text = filler + "the bolts take nine metres " + filler  # 108 pieces, so that two windows have the word
    asked = asked_of(plugin, "the bolts take", text)
    z, context, _ = plugin.encode([asked])
    for _ in range(len(asked.windows)):
        z = z + plugin.advance(z, context, np.ones(1, np.float32))[0]
    posterior = posterior_of(z[0], asked.prior, asked.place, asked.nowhere, asked.sharpness)
    rows = [row for row in range(ROWS) if z[0, row, MARK] and z[0, row, EVIDENCE] == z[0, :, EVIDENCE].max()]
    assert len(rows) == 2
    nine = [span for span in posterior.spans if span.row in rows]
    assert len(nine) == 1
    unbounded = np.append(asked.facts[:5], np.float32(1))  # a limit above every energy
    doubt = energy_of(z[0], asked.prior, asked.place, unbounded)
    assert nine[0].share == pytest.approx(1 - doubt, rel=1e-5)


def test_the_noise_model_takes_reads_back_and_nothing_else():
    plugin = fake_plugin({"nine": 8.0})
    found = refine(plugin, asked_of(plugin)).best
    rng = np.random.default_rng(0)
    half = plugin.perturb(IRPState(np.repeat(found.x[:1], 1000, axis=0), 1), 0.5, rng).x
    kept = half[:, MARK] > 0.5
    assert 400 < kept.sum() < 600
    np.testing.assert_array_equal(half[kept], np.repeat(found.x[:1], kept.sum(), axis=0))
    assert not half[~kept].any()
    masked = plugin.perturb(found, 1.0, rng)
    assert plugin.energy(masked) > plugin.energy(found)
    assert plugin.perturb(found, 0.0, rng).x == pytest.approx(found.x)


@given(st.permutations(range(6)), st.integers(0, 2**32 - 1))
def test_the_meaning_does_not_hang_on_the_order_of_reading(order, seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(6, COLUMNS)).astype(np.float32)
    z[:, MARK] = rng.random(6) < 0.7
    prior = rng.dirichlet(np.ones(6)).astype(np.float32)
    one, other = meaning_of(z, prior, 0.5), meaning_of(z[order], prior[order], 0.5)
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.linalg.norm(one) == pytest.approx(1.0 if z[:, MARK].any() else 0.0, abs=1e-5)
    assert one.shape == (COLUMNS - MEANING,)


def test_a_text_without_a_question_is_kept_and_costs_no_read():
    plugin = fake_plugin()
    run = refine(plugin, plugin.prepare({"text": MANUAL}))
    assert (run.halt_reason, run.last.step_idx, plugin.step_engine.reads) == ("confidence", 0, [])
    details = plugin.decode(run.best).details
    assert (details["text"], details["windows"]) == (None, 3)
    asked = plugin.prepare({"question": TORQUE, "text_id": details["text_id"]})
    assert asked.text.passages == tuple(MANUAL)


def test_a_question_of_the_settings_is_asked_of_texts_that_come_without_one():
    plugin = fake_plugin({"nine": 8.0}, {"question": TORQUE})
    assert plugin.prepare({"text": MANUAL}).question == TORQUE
    assert (
        plugin.prepare({"text": MANUAL, "question": "What weighs eighty?"}).question == "What weighs eighty?"
    )


def test_questions_are_read_side_by_side_with_the_noise_model_of_the_plugin():
    assert isinstance(open_slots(fake_plugin(), capacity=2, threads=1, history=0), LatentSlots)


def test_side_by_side_as_alone_and_a_step_budget_is_kept():
    plugin = fake_plugin({"nine": 3.0, "eighty": 2.0, "six": 2.0}, nothing=-1.0)
    questions = [TORQUE, "What does the camera weigh?", "How long to charge the battery?"]
    alone = [answered(plugin, question) for question in questions]
    with HRM(Settings(telemetry_dir="", slots=3, threads=1), {"language": plugin}) as hrm:
        hrm.start()
        text_id = alone[0]["text_id"]
        tickets = [
            hrm.submit("language", hrm.prepare("language", {"question": question, "text_id": text_id}))
            for question in questions
        ]
        together = [ticket.future.result().answer.details for ticket in tickets]
        prepared = hrm.prepare("language", {"question": TORQUE, "text_id": text_id})
        short = hrm.submit("language", prepared, Budget(max_steps=1)).future.result()
    assert [one["text"] for one in together] == [one["text"] for one in alone]
    assert len(short.answer.details["read"]) == 1


# The reader that ships.


@pytest.fixture(scope="module")
def manual(language):
    return language.prepare({"text": MANUAL}).text.text_id


def test_the_check_finds_nothing_to_mend(language):
    inputs = [language.prepare({"question": "What weighs eighty grams?", "text": MANUAL})]
    findings = check(language, inputs)
    assert [finding for finding in findings if finding.verdict == "FAIL"] == []
    assert any("stepped together" in finding.detail for finding in findings)


@given(seed=st.integers(0, 2**32 - 1))
def test_the_graph_judges_as_the_definition_says(language, seed):
    rng = np.random.default_rng(seed)
    z = np.zeros((2, ROWS, COLUMNS), np.float32)
    z[:, :, MARK] = rng.random((2, ROWS)) < 0.4
    z[:, :, FIRST], z[:, :, LAST] = rng.integers(20, 23, (2, 2, ROWS))
    z[:, :, EVIDENCE] = rng.normal(0, 4, (2, ROWS))
    z[:, :, SHARE] = -rng.random((2, ROWS))
    prior = rng.dirichlet(np.ones(ROWS + 1), 2).astype(np.float32)
    tensors = {
        "z": z,
        "prior": prior[:, :ROWS].copy(),
        "place": rng.integers(0, 2, (2, ROWS)).astype(np.float32),
        "facts": np.stack(
            [[20, rest, 1, 0, 0.7, limit] for rest, limit in zip(prior[:, ROWS], (1.0, 0.3), strict=True)]
        ).astype(np.float32),
    }
    expected = FakeEnergy().run(tensors)["energy"]
    found = language.energies(z, {name: tensors[name] for name in ("prior", "place", "facts")})
    np.testing.assert_allclose(found, expected, atol=2e-5)
    shares = [
        posterior_of(z[n], tensors["prior"][n], tensors["place"][n], 0.0, 0.7).spans[:1] for n in range(2)
    ]
    for share, energy in zip(shares, expected[:, 0], strict=True):
        if energy <= 0.3:
            assert share[0].share == pytest.approx(1 - energy, abs=1e-4)


def test_every_span_is_in_its_window_and_not_too_long(language, manual):
    text = ("The pump of unit seven was replaced on 4 May. " * 40)[:-1]
    asked = language.prepare({"question": "When was the pump of unit seven replaced?", "text": text})
    z, context, _ = language.encode([asked])
    for _ in range(4):
        z = z + language.advance(z, context, np.ones(1, np.float32))[0]
    for row in np.flatnonzero(z[0, :, MARK] > 0.5):
        first, last = z[0, row, FIRST], z[0, row, LAST]
        length = np.count_nonzero(asked.ids[row])
        assert asked.facts[0] <= first <= last < length - 1
        assert last - first < 30
        assert np.linalg.norm(z[0, row, MEANING:]) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How much does the camera weigh?", "eighty grams"),
        ("How long should the battery be charged?", "six hours"),
    ],
)
def test_it_reads(language, question, answer):
    details = answered(language, question)
    assert answer in details["text"]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("כמה שוקלת המצלמה?", "המצלמה שוקלת שמונים גרם."),
        ("相机有多重?", "相机重八十克。" * 50),
        ("\u202eWhat?\u202c\x07", "\x1b[31mred\x1b[0m " * 30),
        ("What is it?", "a" * 100_000),
        ("What is it?", "word\u0301" * 3000),
        ("😀?", "😀 " * 500),
    ],
)
def test_what_it_cannot_read_gets_a_bounded_answer_of_little_trust(language, question, text):
    run = refine(language, language.prepare({"question": question, "text": text}))
    details = language.decode(run.best).details
    energy = language.energy(run.best)
    assert details["text"] is None or text[details["start"] : details["end"]] == details["text"]
    assert 0 <= energy <= 1
    if details["unknown_share"] > 0.5:
        assert details["text"] is None
        assert language.trust(energy) < 0.5
