"""Inputs that share one budget and halt together, over HTTP."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from sage_edge import Settings
from sage_edge.plugins.control import ControlPlugin
from tests.quadratic import QuadraticPlugin
from tests.sage_edge.service.conftest import Service
from tests.wire import TENSOR, as_image, connect, form, post_vector

URL = "/v1/scenes"
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
PNG = as_image(np.zeros((16, 16, 3), np.uint8), "PNG")


def encoded(value=4.0, size=6):
    """A constant vector as a frame in JSON."""
    content = np.full(size, value, np.float32).tobytes()
    return {"base64": base64.b64encode(content).decode(), "shape": [size], "dtype": "float32"}


def member(value=4.0, **options):
    return {"plugin": "quadratic", "frame": encoded(value), **options}


def post(service, members, **shared):
    return service.client.post(URL, json={"members": members, **shared})


def refused(reply, status, code, *words):
    assert reply.status_code == status, reply.text
    assert reply.json()["error"]["code"] == code
    for word in words:
        assert word in reply.json()["error"]["message"]


def test_the_results_come_in_order_each_as_it_would_come_alone(service):
    values = [1.0, 4.0, 2.0]
    scene = post(service, [member(value, budget={"eps": 0, "max_steps": 3}) for value in values]).json()
    assert [result["E0"] for result in scene["results"]] == [1.0, 16.0, 4.0]
    for value, result in zip(values, scene["results"], strict=True):
        alone = post_vector(service.client, (value,) * 6, params={"eps": 0, "max_steps": 3}).json()
        own = {"request_id", "run_id", "scene_id", "time_ms", "ATP_spent"}
        assert {k: v for k, v in result.items() if k not in own} == {
            k: v for k, v in alone.items() if k not in own
        }
        assert result["scene_id"] == scene["scene_id"]


def test_H_is_the_weighted_sum_of_the_energies_that_the_records_tell(service):
    budget = {"eps": 0, "max_steps": 4}
    scene = post(service, [member(4.0, budget=budget), member(1.0, budget=budget)]).json()
    hub = service.hrm.telemetry.hub

    def records():
        kept = hub.after(-1, 1 << 20)[0]
        return [r for r in kept if r["kind"] == "step" and r["scene_id"] == scene["scene_id"]]

    service.wait_for(lambda: len(records()) == len(scene["H"]) == 10)
    energies = {(r["run_id"], r["step_idx"]): r["E_norm"] for r in records()}
    weights = {r["run_id"]: r["trust_weight"] for r in records()}
    now = {}
    for sample in scene["H"]:
        now[sample["run_id"]] = energies[sample["run_id"], sample["step_idx"]]
        H = sum(weights[run_id] * E_norm for run_id, E_norm in now.items())
        assert sample["H"] == pytest.approx(H, rel=1e-6)
    times = [sample["t_ms"] for sample in scene["H"]]
    assert times == sorted(times)
    assert times[0] > 0
    assert set(now) == {result["run_id"] for result in scene["results"]}


def test_all_members_halt_together_once_H_has_settled(service):
    scene = post(service, [member(1.0, budget={"eps": 0}), member(2.0, budget={"eps": 0})]).json()
    assert scene["global_halt"]
    assert {result["halt_reason"] for result in scene["results"]} == {"global_halt"}
    assert all(result["is_partial"] for result in scene["results"])
    H = [sample["H"] for sample in scene["H"]]
    assert max(H[-6:]) - min(H[-6:]) < 1e-3


@pytest.mark.parametrize("policy", ["equal", "proportional", "trust", "greedy"])
def test_a_shared_budget_is_kept_under_every_policy(service, policy):
    one = post_vector(service.client, params={"eps": 0, "max_steps": 20}).json()["ATP_spent"]
    scene = post(service, [member(budget={"eps": 0})] * 4, atp=one, policy=policy).json()
    assert scene["budget"]["policy"] == policy
    assert scene["budget"]["atp"] == pytest.approx(one, abs=1e-6)
    spent = sum(result["ATP_spent"] for result in scene["results"])
    assert scene["budget"]["ATP_spent"] == pytest.approx(spent)
    reasons = {result["halt_reason"] for result in scene["results"]}
    assert reasons <= {"budget", "global_halt", "max_steps"}


def test_a_query_parameter_wins_over_the_body(service):
    reply = service.client.post(
        URL, params={"policy": "equal"}, json={"members": [member()], "policy": "greedy"}
    )
    assert reply.json()["budget"]["policy"] == "equal"


def test_a_form_carries_frames_of_several_plugins_with_options_of_their_own(service, nuclei_bytes):
    vector = np.full(6, 4.0, np.float32)
    document = json.dumps({"frame": encoded(2.0), "budget": {"max_steps": 5, "eps": 0}}).encode()
    options = [
        {"budget": {"max_steps": 1, "eps": 0}, "priority": 3},
        {"budget": {"max_steps": 2, "eps": 0}, "shape": [6], "dtype": "float32"},
        {"budget": {"max_steps": 3}},
    ]
    reply = service.client.post(
        URL,
        files=[
            ("vision", ("a.webp", nuclei_bytes, "image/webp")),
            ("quadratic", ("b.bin", vector.tobytes(), TENSOR)),
            ("quadratic", ("c.json", document, "application/json")),
        ],
        data={"scene": json.dumps({"deadline_ms": 60_000, "members": options})},
    )
    results = reply.json()["results"]
    assert [(result["plugin"], result["steps"]) for result in results] == [
        ("vision", 1),
        ("quadratic", 2),
        ("quadratic", 3),
    ]
    assert results[0]["answer"]["shape"] == [256, 256]
    assert [result["E0"] for result in results[1:]] == [16.0, 4.0]


def test_a_form_needs_no_options(service, nuclei_bytes):
    files = [("vision", ("a.webp", nuclei_bytes)), ("vision", ("b.webp", nuclei_bytes))]
    results = service.client.post(URL, files=files).json()["results"]
    assert [result["answer"]["shape"] for result in results] == [[256, 256]] * 2


def test_a_frame_and_a_problem_share_a_scene(vision, nuclei_bytes):
    problem = {"kind": "qp", "P": [[2, 0], [0, 2]], "q": [-2, -4], "lb": [0, 0], "ub": [1, 1]}
    settings = Settings(slots=2, threads=1, telemetry_dir="", plugins=("vision", "control"))
    plugins = {"vision": vision, "control": ControlPlugin()}
    with Service(plugins, settings) as service:
        scene = post(
            service,
            [
                {"plugin": "vision", "frame": {"base64": base64.b64encode(nuclei_bytes).decode()}},
                {"plugin": "control", "problem": problem},
            ],
        ).json()
    assert [result["plugin"] for result in scene["results"]] == ["vision", "control"]
    solution = np.frombuffer(base64.b64decode(scene["results"][1]["answer"]["base64"]))
    assert solution @ solution - np.array([2.0, 4.0]) @ solution == pytest.approx(-4.0, rel=1e-3)  # its gap


# What is no scene


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ([], 422, "bad_frame", '"members"'),
        ({}, 422, "bad_frame", '"members"'),
        ({"members": {}}, 422, "bad_frame", '"members"'),
        ({"members": []}, 422, "bad_frame", "1 to 16"),
        ({"members": [member()] * 17}, 422, "bad_frame", "1 to 16"),
        ({"members": [member(), 5]}, 422, "bad_frame", "members[1]: "),
        ({"members": [{"frame": encoded()}]}, 422, "bad_frame", "members[0]: "),
        ({"members": [{"plugin": 5, "frame": encoded()}]}, 422, "bad_frame", "members[0]: "),
        ({"members": [member(), {"plugin": "quadratic"}]}, 422, "bad_frame", "members[1]: "),
        (
            {"members": [member(), {**member(), "plugin": "audio"}]},
            404,
            "unknown_plugin",
            "members[1]: plugin",
        ),
        ({"members": [member(colour="red")]}, 422, "bad_frame", "'colour'"),
        ({"members": [member(budget={"max_steps": -1})]}, 422, "bad_parameter", "members[0]: max_steps"),
        ({"members": [member(budget={"priority": 1})]}, 422, "bad_frame", "priority beside it"),
        ({"members": [member(priority=10)]}, 422, "bad_parameter", "members[0]: priority"),
        ({"members": [member(keep="latest")]}, 422, "bad_parameter", "stream_id"),
        ({"members": [member(), {**member(), "frame": encoded(size=7)}]}, 422, "bad_shape", "members[1]: "),
        ({"members": [member()], "atp": 0}, 422, "bad_parameter", "atp: "),
        ({"members": [member()], "max_steps": 3}, 422, "bad_parameter", "max_steps: unknown"),
        ({"members": [member()], "policy": "fair"}, 422, "bad_parameter", "policy: expected one of equal"),
        ({"members": [member(budget={"max_steps": 10**6})]}, 422, "bad_parameter", "at most"),
    ],
)
def test_what_is_no_scene_is_refused_by_the_member(service, body, status, code, words):
    refused(service.client.post(URL, json=body), status, code, words)


UPLOAD = b'; name="vision"; filename="a.png"'
FIELD = b'; name="scene"'


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "bad_frame", "1 to 16"),
        (form((FIELD, b"{}")), "bad_frame", "1 to 16"),
        (form((UPLOAD, b"")), "bad_frame", "members[0]: form field 'vision': expected a frame"),
        (form((b'; name="vision"', b"text")), "bad_frame", "members[0]: frame"),
        (form(*[(UPLOAD, PNG)] * 17), "bad_frame", "not a usable form"),
        (form((UPLOAD, PNG), (FIELD, b"{}"), (FIELD, b"{}")), "bad_frame", "expected one form field"),
        (form((UPLOAD, PNG), (FIELD, b"{")), "bad_frame", "not valid JSON"),
        (form((UPLOAD, PNG), (FIELD, b"[]")), "bad_frame", "JSON object"),
        (form((UPLOAD, PNG), (FIELD, b'{"members": []}')), "bad_frame", "each of the 1 inputs"),
        (form((UPLOAD, PNG), (FIELD, b'{"members": [5]}')), "bad_frame", "members[0]: "),
        (form((UPLOAD, PNG), (FIELD, b'{"members": [{"shape": 5}]}')), "bad_shape", "list of integers"),
        (form((UPLOAD, PNG), (FIELD, b'{"members": [{"steps": 5}]}')), "bad_frame", "'steps'"),
        (form((UPLOAD, PNG), (FIELD, b'{"atp": "much"}')), "bad_parameter", "atp: "),
        (form((UPLOAD, b"text")), "bad_frame", "members[0]: frame"),
        (form((UPLOAD + b"\r\nContent-Type: application/json", b"{}")), "bad_frame", "members[0]: body"),
    ],
)
def test_a_form_that_is_no_scene_is_refused(service, content, code, words):
    refused(service.client.post(URL, content=content, headers=FORM), 422, code, words)


def test_other_types_are_refused(service):
    reply = service.client.post(URL, content=PNG, headers={"Content-Type": "image/png"})
    refused(reply, 415, "unsupported_media_type", "multipart/form-data, application/json", "'image/png'")
    reply = service.client.post(URL, json={"members": [member()]}, headers={"Accept": "image/png"})
    refused(reply, 406, "not_acceptable", "application/json")


def test_a_misspelt_parameter_is_refused(service):
    reply = service.client.post(URL, params={"apt": 5}, json={"members": [member()]})
    refused(reply, 422, "bad_parameter", "apt: unknown parameter")


def test_all_members_together_are_limited_in_size(service):
    half = base64.b64encode(bytes(4 << 20)).decode()
    reply = post(service, [{"plugin": "vision", "frame": {"base64": half}}] * 2)
    refused(reply, 413, "frame_too_large", "body: expected at most 8388608 bytes")


# Members that fail, and callers that go away


class MoodyPlugin(QuadraticPlugin):
    """Fails in its first step."""

    name = "moody"

    def advance(self, z, context, step_size):
        if 3 in context["target"][:, 0]:
            raise ZeroDivisionError("a defect")
        return super().advance(z, context, step_size)


def test_a_member_that_fails_has_its_error_in_its_place(caplog):
    settings = Settings(slots=2, threads=1, telemetry_dir="")
    with Service({"quadratic": QuadraticPlugin(), "moody": MoodyPlugin()}, settings) as service:
        scene = post(service, [{**member(3.0), "plugin": "moody"}, member(4.0)]).json()
        assert service.hrm.ledger.balance.locked_uatp == 0
    assert "a defect" in caplog.text
    assert scene["results"][0]["error"]["code"] == "plugin_failed"
    assert scene["results"][1]["halt_reason"] == "slope<eps"


def test_where_there_is_no_room_for_all_none_is_refined(gated):
    service, gate = gated
    gate.close()
    reply = post(service, [member()] * 3)
    gate.open()
    refused(reply, 429, "queue_full")
    assert reply.headers["Retry-After"] == "1"
    service.wait_for(lambda: service.hrm.ledger.balance.locked_uatp == 0)
    service.wait_for(lambda: service.hrm.status()["quadratic"]["waiting"] == 0)
    assert post(service, [member()]).status_code == 200


def test_a_caller_that_goes_away_ends_all_members(gated):
    service, gate = gated
    gate.close()
    body = json.dumps({"members": [member(budget={"eps": 0})]}).encode()
    with connect(service) as caller:
        caller.sendall(
            b"POST /v1/scenes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        service.wait_for(lambda: gate.steps == 1)
    [running] = service.hrm._served["quadratic"].worker._running.values()
    service.wait_for(running.ticket.is_cancelled)
    gate.open()
    service.wait_for(lambda: service.hrm.ledger.balance.locked_uatp == 0)
    assert gate.steps == 1
    assert service.hrm.status()["quadratic"]["live"] == 0
