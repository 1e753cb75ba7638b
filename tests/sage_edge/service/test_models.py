"""What the service really answers is what its models say, field by field."""

from __future__ import annotations

import json
import threading

import httpx
import pytest

from sage_edge import Settings
from sage_edge.plugins.control import ControlPlugin
from sage_edge.runtime.building import Progress
from sage_edge.service.starting import readiness
from sage_edge.telemetry import TelemetryValidator, load_schema
from tests.kinds import PicturePlugin
from tests.openapi import assert_as_documented, assert_fits
from tests.quadratic import QuadraticPlugin
from tests.sage_edge.service.conftest import Service
from tests.sage_edge.service.test_control_bodies import QP
from tests.sage_edge.service.test_refine import parse_events
from tests.sage_edge.service.test_scenes import MoodyPlugin, member
from tests.wire import post_vector

REFINE = "/v1/refine/{name}"


@pytest.fixture(scope="module")
def served(vision, tmp_path_factory):
    """A service with answers of every sort, and an audit chain."""
    settings = Settings(
        slots=4, threads=1, telemetry_dir=str(tmp_path_factory.mktemp("telemetry")), audit_every=1
    )
    plugins = {
        "vision": vision,
        "control": ControlPlugin(),
        "quadratic": QuadraticPlugin(),
        "picture": PicturePlugin(),
        "moody": MoodyPlugin(),
    }
    with Service(plugins, settings) as running:
        yield running


@pytest.fixture(scope="module")
def document(served):
    return served.client.get("/openapi.json").json()


def test_answers_of_every_sort_are_results(served, document, nuclei_bytes):
    post = served.client.post
    mask = post("/v1/refine/vision", content=nuclei_bytes)
    solution = post("/v1/refine/control", json={"problem": QP})
    picture = post("/v1/refine/picture", json={"frame": member()["frame"]})
    for reply in (mask, solution, picture, post_vector(served.client)):
        assert reply.status_code == 200, reply.text
        assert_as_documented(document, "post", REFINE, reply)
    assert mask.json()["answer"]["classes"]
    assert solution.json()["answer"]["feasible"] is True
    assert picture.json()["answer"]["png_base64"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/status", "/v1/plugins"])
def test_what_is_said_of_the_service_is_as_documented(served, document, path):
    assert_as_documented(document, "get", path, served.client.get(path))


def test_a_scene_and_the_error_of_a_member_are_as_documented(served, document):
    scene = {"members": [member(4.0), {**member(3.0), "plugin": "moody"}], "atp": 1000}
    reply = served.client.post("/v1/scenes", json=scene)
    assert_as_documented(document, "post", "/v1/scenes", reply)
    assert reply.json()["results"][1]["error"]["code"] == "plugin_failed"


def test_a_quality_moves_the_trust_as_documented(served, document):
    report = {"quality": 0.7, "source": "label"}
    worth = {
        "satisfaction": 0.5,
        "verified_claims": 3,
        "total_claims": 4,
        "witness_confidence": 1.0,
        "value_transferred": True,
    }
    for beside in ({}, {"outcome": "novel_success"}, worth):
        request_id = post_vector(served.client).json()["request_id"]
        reply = served.client.post("/v1/quality", json={"request_id": request_id, **report, **beside})
        assert reply.status_code == 200, reply.text
        assert_as_documented(document, "post", "/v1/quality", reply)


def test_the_head_of_the_audit_chain_is_as_documented(served, document):
    post_vector(served.client)
    served.wait_for(lambda: served.client.get("/v1/audit/head").status_code == 200)
    assert_as_documented(document, "get", "/v1/audit/head", served.client.get("/v1/audit/head"))


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("post", "/v1/refine/quadratic", {"content": b""}, 422),
        ("post", "/v1/refine/audio", {"content": b"x"}, 404),
        ("post", "/v1/refine/quadratic", {"content": b"x", "headers": {"Content-Type": "text/csv"}}, 415),
        ("post", "/v1/refine/quadratic", {"content": b"x", "headers": {"Accept": "text/csv"}}, 406),
        ("post", "/v1/refine/quadratic?eps=x", {"content": b"x"}, 422),
        ("post", "/v1/refine/quadratic", {"content": bytes(65 << 20)}, 413),
        ("post", "/v1/scenes", {"json": {}}, 422),
        ("post", "/v1/quality", {"json": {}}, 422),
        ("get", "/v1/refine/nobody", {}, 404),
        ("delete", "/v1/refine/nobody", {}, 404),
        ("get", "/v1/telemetry?limit=0", {}, 422),
        ("get", "/v1/telemetry/stream?after=x", {}, 422),
    ],
)
def test_errors_are_as_documented(served, document, method, path, sent, status):
    reply = served.client.request(method, path, **sent)
    assert reply.status_code == status, reply.text
    route = REFINE if path.startswith("/v1/refine/") else path.partition("?")[0]
    assert_as_documented(document, method, route, reply)


def test_nothing_signed_is_an_error_as_documented(service):
    reply = service.client.get("/v1/audit/head")
    assert reply.status_code == 404
    assert_as_documented(service.client.get("/openapi.json").json(), "get", "/v1/audit/head", reply)


def test_answers_that_are_fetched_later_are_as_documented(gated):
    service, gate = gated
    document = service.client.get("/openapi.json").json()
    gate.close()
    later = {"Prefer": "respond-async"}
    running, waiting = (
        post_vector(service.client, headers=later | {"X-Request-Id": name}) for name in ("first", "second")
    )
    for reply in (running, waiting):
        assert reply.status_code == 202
        assert_as_documented(document, "post", REFINE, reply)
    service.wait_for(lambda: gate.steps == 1)
    assert_as_documented(document, "get", REFINE, service.client.get("/v1/refine/second"))
    partial = []

    def fetch():
        partial.append(httpx.get(f"{service.url}/v1/refine/first", timeout=30))

    caller = threading.Thread(target=fetch)
    caller.start()
    while caller.is_alive():
        gate.let_one_pass()
        caller.join(0.05)
    assert_as_documented(document, "get", REFINE, partial[0])
    gate.open()
    busy = post_vector(service.client, params={"deadline_ms": 0.001})
    assert busy.status_code == 503
    assert_as_documented(document, "post", REFINE, busy)


def test_the_events_of_a_stream_are_records_and_a_result(served, document):
    validator = TelemetryValidator(load_schema())
    reply = post_vector(served.client, headers={"Accept": "text/event-stream"})
    *steps, (name, result) = parse_events(reply.text)
    assert {name for name, _ in steps} == {"step"}
    for _, step in steps:
        assert list(validator.errors(step)) == []
    assert name == "result"
    assert_fits(document, {"$ref": "#/components/schemas/Result"}, result)


def test_the_error_of_a_stream_is_an_error(served, document):
    reply = served.client.post(
        "/v1/refine/moody", json={"frame": member(3.0)["frame"]}, headers={"Accept": "text/event-stream"}
    )
    name, error = parse_events(reply.text)[-1]
    assert name == "error"
    assert_fits(document, {"$ref": "#/components/schemas/Error"}, error)


@pytest.mark.parametrize("remaining_s", [None, 61.5])
def test_the_progress_of_a_build_is_a_readiness(document, remaining_s):
    progress = Progress("net.step.fp16.b8", 5, 12, 0.47, 61.2, remaining_s)
    ready = json.loads(json.dumps(readiness(progress)))
    assert_fits(document, {"$ref": "#/components/schemas/Readiness"}, ready)
