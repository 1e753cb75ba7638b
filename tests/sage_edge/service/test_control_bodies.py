"""Problems over HTTP: as JSON, as an archive of arrays, and what a body of the wrong kind gets."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import orjson
import pytest

from sage_edge import Settings
from sage_edge.plugins.control import ControlPlugin
from tests.quadratic import QuadraticPlugin
from tests.sage_edge.service.conftest import Service

QP = {"kind": "qp", "P": [[2.0, 0.0], [0.0, 2.0]], "q": [-2.0, -5.0], "A": [[1.0, 1.0]], "u": [1.0]}


@pytest.fixture(scope="module")
def control():
    settings = Settings(telemetry_dir="", slots=2, threads=1, max_body_bytes=1 << 20)
    with Service({"control": ControlPlugin(), "quadratic": QuadraticPlugin()}, settings) as service:
        yield service.client


def archive(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def test_a_problem_as_json_is_answered_through_the_slots(control):
    reply = control.post("/v1/refine/control", json={"problem": QP, "budget": {"max_steps": 20}})
    assert reply.status_code == 200
    answer = reply.json()["answer"]
    np.testing.assert_allclose(answer["x"], [-0.25, 1.25], atol=2e-3)
    assert answer["feasible"] is True
    assert reply.json()["halt_reason"] == "feasible"


def test_a_problem_as_an_archive_of_arrays_has_the_same_answer(control):
    arrays = {name: np.asarray(value) for name, value in QP.items()}
    headers = {"Content-Type": "application/octet-stream", "Accept": "application/octet-stream"}
    reply = control.post("/v1/refine/control", content=archive(**arrays), headers=headers)
    assert reply.status_code == 200
    assert reply.headers["Sage-Tensor-Dtype"] == "float64"
    by_json = control.post("/v1/refine/control", json={"problem": QP}).json()["answer"]["x"]
    np.testing.assert_array_equal(np.frombuffer(reply.content), by_json)


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {"problem": QP}},
        {"content": json.dumps({"problem": QP})},
        {"content": json.dumps(QP)},
        {"files": {"problem": ("qp.json", json.dumps(QP), "application/json")}},
        {"files": {"problem": ("qp.json", json.dumps({"problem": QP}), "application/json")}},
        {"files": {"problem": ("qp.json", json.dumps(QP), "application/octet-stream")}},
        {"files": {"problem": (None, json.dumps(QP))}},
        {"files": {"problem": ("qp.npz", archive(**QP), "application/octet-stream")}},
    ],
)
def test_every_way_to_send_a_problem_gets_the_same_answer(control, sent):
    reply = control.post("/v1/refine/control", **sent)
    assert reply.status_code == 200, reply.text
    np.testing.assert_allclose(reply.json()["answer"]["x"], [-0.25, 1.25], atol=2e-3)


def test_zero_steps_give_the_first_iterate_and_say_whether_it_is_feasible(control):
    problem = QP | {"l": [0.5]}
    reply = control.post("/v1/refine/control?max_steps=0", json={"problem": problem}).json()
    assert reply["steps"] == 0
    assert reply["is_partial"] is True
    assert reply["answer"]["feasible"] is False
    assert reply["answer"]["violation"] == pytest.approx(0.5)


def bomb():
    """An archive that says, and holds, far more than the largest body."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as held:
        held.writestr("P.npy", bytes(2 << 20))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"json": {"problem": {"kind": "qp"}}}, 422, "bad_parameter"),
        ({"json": {"problem": QP, "frame": {}}}, 422, "bad_frame"),
        ({"json": {"problem": [1]}}, 422, "bad_frame"),
        ({"json": {"frame": {"base64": "AAAA"}}}, 422, "bad_frame"),
        ({"json": {"problem": QP | {"P": [[-1, 0], [0, 1]]}}}, 422, "bad_problem"),
        (
            {"content": b"no archive", "headers": {"Content-Type": "application/octet-stream"}},
            422,
            "bad_frame",
        ),
        (
            {"content": bomb(), "headers": {"Content-Type": "application/octet-stream"}},
            413,
            "frame_too_large",
        ),
        (
            {"content": b"\xff\xd8", "headers": {"Content-Type": "image/jpeg"}},
            415,
            "unsupported_media_type",
        ),
        ({"content": b"\xff\xd8"}, 422, "bad_frame"),
        ({"content": b"PK no archive"}, 422, "bad_frame"),
    ],
)
def test_a_body_that_is_no_problem_is_refused(control, body, status, code):
    reply = control.post("/v1/refine/control", **body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


def test_an_archive_with_pickled_objects_is_refused(control):
    buffer = io.BytesIO()
    np.savez(buffer, kind=np.array({"qp"}, dtype=object))
    headers = {"Content-Type": "application/octet-stream"}
    reply = control.post("/v1/refine/control", content=buffer.getvalue(), headers=headers)
    assert reply.json()["error"]["code"] == "bad_frame"


def test_a_plugin_that_takes_frames_refuses_a_problem(control):
    reply = control.post("/v1/refine/quadratic", json={"problem": QP})
    assert reply.status_code == 422
    message = reply.json()["error"]["message"]
    assert message.startswith('body: expected {"frame": {"base64": ')
    assert message.endswith("got the keys ['problem']")


@pytest.mark.parametrize("name", ["P", "q", "A", "l", "u", "lb", "ub", "eps"])
@pytest.mark.parametrize(
    "number", ["9" * 400, "1e308", "-1e308", "1e309", "NaN", "-Infinity", '"\\ud800"', "null"]
)
@pytest.mark.parametrize("around", ["{}", "[{}]", "[[{}]]"])
def test_no_number_in_a_problem_is_a_defect_of_the_service(control, name, number, around):
    problem = f'{{"kind": "qp", "P": [[1]], "q": [1], "A": [[1]], "{name}": {around.format(number)}}}'
    body = f'{{"problem": {problem}, "budget": {{"max_steps": 3}}}}'
    reply = control.post("/v1/refine/control", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code in (200, 422)
    orjson.loads(reply.content)  # which knows neither NaN nor infinity


def test_what_overflows_in_an_answer_is_null(control):
    problem = {"kind": "qp", "P": [[1.0]], "q": [1.0], "lb": [1e308]}
    answer = control.post("/v1/refine/control", json={"problem": problem}).json()["answer"]
    assert answer["x"] == [1e308]
    assert answer["objective"] is None
