"""Every kind of input over HTTP: texts, and a kind that the service has never heard of."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sage_edge import Settings
from tests.kinds import LettersPlugin, NumbersKind, NumbersPlugin, PicturePlugin
from tests.openapi import validator_of
from tests.quadratic import QuadraticPlugin
from tests.sage_edge.service.conftest import Service
from tests.sage_edge.service.test_refine import png_of
from tests.wire import TENSOR, form, tensor_headers

NUMBERS, LETTERS = "/v1/refine/numbers", "/v1/refine/letters"
SENT = [4.0] * 6
CSV = ",".join(map(str, SENT)).encode()
FORM = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.fixture(scope="module")
def kinds():
    settings = Settings(telemetry_dir="", slots=4, threads=1, max_body_bytes=4 << 20)
    plugins = [NumbersPlugin(), LettersPlugin(), PicturePlugin(), QuadraticPlugin()]
    with Service({plugin.name: plugin for plugin in plugins}, settings) as service:
        yield service.client


def typed(content, media_type):
    return {"content": content, "headers": {"Content-Type": media_type}}


def assert_refused(reply, status, *words):
    assert reply.status_code == status, reply.text
    for word in words:
        assert word in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "sent",
    [
        typed(CSV, "text/csv"),
        typed(CSV, "Text/CSV; charset=utf-8"),
        typed(CSV, "application/x-www-form-urlencoded"),
        {"content": CSV},
        {"json": {"numbers": SENT}},
        {"json": {"numbers": SENT, "budget": {"max_steps": 20}}},
        {"content": json.dumps({"numbers": SENT})},
        {"files": {"numbers": ("a.csv", CSV, "text/csv")}},
        {"files": {"numbers": ("a.csv", CSV)}},
        {"files": {"numbers": (None, CSV)}},
        {"files": {"numbers": ("a.json", json.dumps({"numbers": SENT}), "application/json")}},
    ],
)
def test_a_kind_of_ones_own_is_served_whatever_way_it_is_sent(kinds, sent):
    reply = kinds.post(NUMBERS, **sent)
    assert reply.status_code == 200, reply.text
    assert reply.json()["E0"] == 16.0


def test_a_kind_of_ones_own_refuses_what_is_none(kinds):
    assert_refused(
        kinds.post(NUMBERS, **typed(b"a,b", "text/csv")), 422, "numbers: expected them with commas"
    )
    assert_refused(kinds.post(NUMBERS, json={"numbers": 5}), 422, "numbers: expected a list, got 5")
    assert_refused(kinds.post(NUMBERS, json={"frame": {}}), 422, 'expected {"numbers": …}', "['frame']")
    assert_refused(kinds.post(NUMBERS, **typed(b"", "text/csv")), 422, "body: expected a line of numbers")
    reply = kinds.post(NUMBERS, **typed(CSV, "image/png"))
    assert_refused(reply, 415, "text/csv, multipart/form-data, application/json, got 'image/png'")


def test_kinds_of_all_sorts_share_a_scene(kinds):
    vector = np.full(6, 4.0, np.float32)
    members = [
        {"plugin": "numbers", "numbers": SENT},
        {"plugin": "letters", "text": "aaaabbbbccccddddeeeeffff", "budget": {"max_steps": 1}},
    ]
    scene = kinds.post("/v1/scenes", json={"members": members}).json()
    assert [result["E0"] for result in scene["results"]] == [16.0, 16.0]
    files = [
        ("numbers", ("a.csv", CSV, "text/csv")),
        ("letters", ("a.md", b"aaaabbbbccccddddeeeeffff", TENSOR)),
        ("letters", (None, b"aaaabbbbccccddddeeeeffff")),
        ("letters", (None, json.dumps({"text": "abcdef"}))),
        ("quadratic", ("a.bin", vector.tobytes())),
    ]
    options = [{}, {}, {}, {}, {"shape": [6], "dtype": "float32"}]
    scene = kinds.post("/v1/scenes", files=files, data={"scene": json.dumps({"members": options})}).json()
    assert [result["E0"] for result in scene["results"]] == [16.0, 16.0, 16.0, 1.0, 16.0]


@pytest.mark.parametrize(
    "sent",
    [
        typed("abcdef é".encode(), "text/plain; charset=utf-8"),
        typed(b"abcdef", "text/markdown"),
        {"content": b"abcdef"},
        {"json": {"text": "abcdef"}},
        {"files": {"text": ("a.txt", b"abcdef", "text/plain")}},
        {"files": {"text": ("a.md", b"abcdef")}},
        {"files": {"text": (None, "abcdef é")}},
    ],
)
def test_a_text_is_read_whatever_way_it_is_sent(kinds, sent):
    reply = kinds.post(LETTERS, **sent)
    assert reply.status_code == 200, reply.text
    assert reply.json()["E0"] == 1.0


@pytest.mark.parametrize("content", [b"\xe9", b"ab\0", b""])
def test_what_is_no_text_is_refused_whatever_way_it_is_sent(kinds, content):
    part = form((b'; name="text"', content))
    upload = form((b'; name="text"; filename="a.txt"\r\nContent-Type: text/plain', content))
    for reply in (
        kinds.post(LETTERS, **typed(content, "text/plain")),
        kinds.post(LETTERS, content=part, headers=FORM),
        kinds.post(LETTERS, content=upload, headers=FORM),
    ):
        assert_refused(reply, 422, "text", "expected", "got")
        assert reply.json()["error"]["code"] == "bad_frame"


def test_a_long_part_without_a_file_name_is_taken_like_a_file(kinds):
    long = b"abcdef" + b" " * (2 << 20)
    assert kinds.post(LETTERS, files={"text": (None, long)}).json()["E0"] == 1.0


def test_the_plugins_name_their_kinds(kinds):
    described = kinds.get("/v1/plugins").json()
    assert {name: plugin["takes"] for name, plugin in described.items()} == {
        "numbers": "line of numbers",
        "letters": "text",
        "picture": "frame",
        "quadratic": "frame",
    }


def test_the_document_describes_the_kinds_that_are_served(kinds):
    document = kinds.get("/openapi.json").json()
    content = document["paths"]["/v1/refine/{name}"]["post"]["requestBody"]["content"]
    assert {"text/csv", "text/plain", "text/markdown", "image/webp", TENSOR} <= set(content)
    assert kinds.get("/openapi.json").json() == document
    bodies = content["application/json"]
    validator = validator_of(document, bodies["schema"])
    for example in bodies["examples"].values():
        validator.validate(example["value"])
    validator.validate({"numbers": SENT, "priority": 1})
    assert not validator.is_valid({"numbers": []})
    assert not validator.is_valid({"problem": {"kind": "qp"}})
    assert NumbersKind.key in bodies["examples"]


# Answers that are pictures


def test_an_answer_that_is_a_picture_has_a_png(kinds):
    colours = np.array([10, 20, 30, 0, 100, 50], np.float32)

    def ask(accept):
        headers = tensor_headers(colours) | {"Accept": accept}
        return kinds.post("/v1/refine/picture?eps=0", content=colours.tobytes(), headers=headers)

    expected = np.rint(colours).astype(np.uint8).reshape(1, 2, 3)
    picture = png_of(ask("application/json"))
    np.testing.assert_allclose(picture, expected, atol=1)  # the 21st state is that near to its target
    assert ask("image/png").headers["content-type"] == "image/png"
    assert ask(TENSOR).headers["Sage-Tensor-Shape"] == "1,2,3"


def test_an_answer_that_is_none_has_no_png(kinds):
    reply = kinds.post(NUMBERS, json={"numbers": SENT}, headers={"Accept": "image/png"})
    assert_refused(reply, 406, "numbers answered with no mask or picture, but float32 [6]")
