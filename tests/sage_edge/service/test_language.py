"""Questions over HTTP, by a real client: every way to send a text, one text for many questions, bad input."""

from __future__ import annotations

import json

import pytest

from sage_edge import Settings
from tests.fake_reader import fake_plugin
from tests.sage_edge.service.conftest import Service

ROUTE = "/v1/refine/language"
MANUAL = "Tighten the bolts to nine newton metres. The camera weighs eighty grams."
QUESTION = "What torque for the bolts?"


@pytest.fixture(scope="module")
def served():
    plugins = {
        "language": fake_plugin({"nine": 6.0, "eighty": 5.0}, nothing=-8.0),
        "torque": fake_plugin({"nine": 6.0}, {"question": QUESTION}, nothing=-8.0),
    }
    plugins["torque"].name = "torque"
    settings = Settings(telemetry_dir="", slots=4, threads=1, max_body_bytes=16 << 20)
    with Service(plugins, settings) as service:
        yield service.client


def ask(client, problem, **more):
    reply = client.post(ROUTE, json={"problem": problem, **more})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_a_question_is_answered_with_its_span_where_it_stands_and_what_was_read(served):
    result = ask(
        served, {"question": QUESTION, "text": [MANUAL, "Another page."]}, budget={"deadline_ms": 5000}
    )
    answer = result["answer"]
    assert (answer["text"], answer["source"]) == ("nine", 0)
    assert MANUAL[answer["start"] : answer["end"]] == "nine"
    assert answer["windows"] == 2
    assert {"source", "start", "end", "score"} <= set(answer["read"][0])
    assert 0 <= result["trust"] <= 1


@pytest.mark.parametrize(
    "sent",
    [
        {"content": MANUAL.encode(), "headers": {"Content-Type": "text/plain; charset=utf-8"}},
        {"content": MANUAL.encode(), "headers": {"Content-Type": "text/markdown"}},
        {"content": MANUAL.encode()},
        {"files": {"problem": ("manual.md", MANUAL.encode(), "text/markdown")}},
        {"files": {"problem": ("manual.txt", MANUAL.encode(), "text/plain")}},
        {"files": {"problem": ("manual.txt", MANUAL.encode())}},
        {"json": {"problem": {"text": MANUAL}}},
        {"content": json.dumps({"problem": {"text": MANUAL}})},
    ],
)
def test_a_text_is_posted_once_and_asked_by_its_id(served, sent):
    reply = served.post(ROUTE, **sent)
    assert reply.status_code == 200, reply.text
    posted = reply.json()
    assert (posted["steps"], posted["answer"]["text"]) == (0, None)
    text_id = posted["answer"]["text_id"]
    assert ask(served, {"question": QUESTION, "text_id": text_id})["answer"]["text"] == "nine"
    again = served.post("/v1/refine/torque", **sent).json()  # the question is in the settings
    assert (again["answer"]["text"], again["answer"]["text_id"]) == ("nine", text_id)


def test_a_text_that_does_not_say_is_answered_null(served):
    answer = ask(served, {"question": "Who painted the door?", "text": "The door is green."})["answer"]
    assert answer["text"] is None
    assert answer["rivals"][0]["text"] == "The"


def test_several_questions_share_a_budget(served):
    text_id = served.post(ROUTE, content=MANUAL.encode()).json()["answer"]["text_id"]
    members = [
        {"plugin": "language", "problem": {"question": question, "text_id": text_id}}
        for question in (QUESTION, "What does the camera weigh?")
    ]
    scene = served.post("/v1/scenes", json={"members": members, "atp": 1e6}).json()
    assert [result["answer"]["text"] for result in scene["results"]] == ["nine", "nine"]
    assert scene["budget"]["ATP_spent"] == pytest.approx(
        sum(one["ATP_spent"] for one in scene["results"]), rel=0.01
    )


def test_the_answer_settles_event_by_event(served):
    text = [
        "The arm has bolts.",
        "The torque for bolts is nine newton metres.",
        *(f"Page {n} has bolts." for n in range(30)),
    ]
    headers = {"Accept": "text/event-stream"}
    with served.stream(
        "POST", ROUTE, json={"problem": {"question": QUESTION, "text": text}}, headers=headers
    ) as reply:
        events = [line.removeprefix("data: ") for line in reply.iter_lines() if line.startswith("data: ")]
    steps, result = [json.loads(event) for event in events[:-1]], json.loads(events[-1])
    assert [step["step_idx"] for step in steps][: len(steps)] == list(range(len(steps)))
    assert steps[0]["E"] == pytest.approx(1.0)
    assert result["answer"]["text"] == "nine"
    assert result["E"] == pytest.approx(min(step["E"] for step in steps), abs=1e-5)


@pytest.mark.parametrize(
    ("sent", "status", "code", "words"),
    [
        ({"json": {"problem": {"question": "", "text": MANUAL}}}, 422, "bad_problem", "1 to 64 words"),
        ({"json": {"problem": {"question": QUESTION, "text": ""}}}, 422, "bad_problem", "expected words"),
        (
            {"json": {"problem": {"question": QUESTION, "text_id": "ab"}}},
            422,
            "bad_problem",
            "send the text again",
        ),
        (
            {"json": {"problem": {"question": QUESTION, "text": MANUAL, "page": 1}}},
            422,
            "bad_problem",
            "page",
        ),
        ({"json": {"problem": [QUESTION]}}, 422, "bad_problem", "expected an object"),
        ({"content": b"caf\xe9", "headers": {"Content-Type": "text/plain"}}, 422, "bad_frame", "0xe9 at 3"),
        ({"content": b"a\0b", "headers": {"Content-Type": "text/plain"}}, 422, "bad_frame", "NUL"),
        ({"content": b"word " * 2_000_000}, 413, "frame_too_large", "word pieces"),
        (
            {"json": {"problem": {"question": QUESTION, "text": ["a"] * 4097}}},
            422,
            "bad_problem",
            "4096 passages",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_code_and_words(served, sent, status, code, words):
    reply = served.post(ROUTE, **sent)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, code), error
    assert words in error["message"]


def test_an_answer_is_a_meaning_of_384_numbers_as_a_raw_tensor(served):
    headers = {"Accept": "application/octet-stream"}
    reply = served.post(ROUTE, json={"problem": {"question": QUESTION, "text": MANUAL}}, headers=headers)
    assert (reply.headers["Sage-Tensor-Shape"], reply.headers["Sage-Tensor-Dtype"]) == ("384", "float32")
    assert len(reply.content) == 4 * 384
