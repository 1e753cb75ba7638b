"""Whether it lives, whether it is ready, what runs where."""

from __future__ import annotations

import httpx
import pytest

import sage_edge
from sage_edge import native
from tests.wire import post_vector


def test_a_service_that_serves_is_alive_and_ready(service):
    assert service.client.get("/healthz").json() == {"live": True}
    assert service.client.get("/readyz").json() == {"ready": True, "state": "ready", "problems": []}


def test_the_status_says_what_runs_where(service):
    status = service.client.get("/v1/status").json()
    vision = status["plugins"]["vision"]
    assert status["version"] == sage_edge.__version__
    assert (status["state"], status["profile"]) == ("ready", "edge")
    assert status["cuda"] == {"built": native.BUILT_WITH_CUDA, "devices": native.cuda_devices()}
    assert status["uptime_s"] > 0
    assert set(status["prices"]) == set(status["plugins"])
    assert vision["backend"] == "onnxruntime-cpu"
    assert (vision["loop"], vision["can_rewind"]) == ({"mode": "host", "reason": ""}, True)
    assert len(vision["model_sha256"]) == 64
    assert (vision["slots"], vision["waiting"]) == (4, 0)
    assert set(vision["bound_ms"]) == {"wait", "encode", "step", "decode", "reply"}
    assert status["plugins"]["quadratic"]["model_sha256"] is None


def test_the_status_shows_who_is_in_a_slot_and_who_waits(gated):
    import threading

    service, gate = gated
    gate.close()

    def lane():
        return httpx.get(f"{service.url}/v1/status").json()["plugins"]["quadratic"]

    callers = [threading.Thread(target=post_vector, args=(service.client,)) for _ in range(2)]
    callers[0].start()
    service.wait_for(lambda: (lane()["live"], lane()["waiting"]) == (1, 0))
    callers[1].start()
    service.wait_for(lambda: (lane()["live"], lane()["waiting"]) == (1, 1))
    gate.open()
    for caller in callers:
        caller.join()
    service.wait_for(lambda: (lane()["live"], lane()["waiting"]) == (0, 0))


def test_the_plugins_state_their_invariants_and_their_halting_rule(service):
    plugins = service.client.get("/v1/plugins").json()
    assert sorted(plugins) == ["quadratic", "vision"]
    assert plugins["quadratic"]["invariants"]["energy_fn"] == "mean-squared-distance"
    assert plugins["quadratic"]["halting"] == {"K": 2, "eps": 1e-3, "max_steps": 20, "E_scale": 1.0}


def test_the_status_shows_the_energy_account_and_who_holds_some_of_it(gated):
    import threading

    service, gate = gated

    def ledger():
        return httpx.get(f"{service.url}/v1/status").json()["ledger"]

    before = ledger()
    gate.close()
    caller = threading.Thread(target=post_vector, args=(service.client,))
    caller.start()
    service.wait_for(lambda: gate.steps == 1)
    during = ledger()
    gate.open()
    caller.join()
    after = ledger()
    assert [account["scenes"] for account in (before, during, after)] == [0, 1, 0]
    assert during["ATP_locked"] > 0 == before["ATP_locked"] == after["ATP_locked"]
    assert after["ADP"] > before["ADP"]
    for account in (before, during, after):
        held = account["ATP_available"] + account["ATP_locked"] + account["ADP"]
        assert held == pytest.approx(account["ATP_initial"], abs=1e-3)
        assert 0 <= account["energy_ratio"] <= 1


def test_the_status_names_the_policy_and_the_memory_of_the_history(service):
    status = service.client.get("/v1/status").json()
    assert status["allocation"] == "greedy"
    assert status["plugins"]["vision"]["history_bytes"] > 0


@pytest.mark.parametrize("state", ["draining", "failed"])
def test_a_service_that_takes_no_requests_is_alive_but_not_ready(gated, state):
    service, _ = gated
    if state == "draining":
        service.app.state.context.is_draining = True
    else:
        service.hrm._served["quadratic"].worker._give_up.set()
        post_vector(service.client)  # wakes the worker, which then ends
        service.wait_for(lambda: not service.hrm.is_serving)
    reply = service.client.get("/readyz")
    assert (reply.status_code, reply.json()) == (503, {"ready": False, "state": state, "problems": []})
    assert reply.headers["Retry-After"] == "1"
    assert service.client.get("/healthz").status_code == 200


def test_a_closed_orchestrator_refuses_with_503_and_a_time_to_come_back(gated):
    service, _ = gated
    service.hrm._served["quadratic"].room.close()
    reply = post_vector(service.client)
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "draining"
    assert reply.headers["Retry-After"] == "1"


GET_ROUTES = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/status",
    "/v1/plugins",
    "/v1/telemetry",
    "/v1/telemetry/schema",
    "/v1/telemetry/stream",
    "/v1/audit/head",
    "/v1/refine/nobody",
    "/openapi.json",
    "/docs",
]


def test_every_route_that_has_get_is_asked_for_its_head(service):
    paths = service.client.get("/openapi.json").json()["paths"]
    documented = {path.replace("{name}", "nobody") for path, methods in paths.items() if "get" in methods}
    assert documented == set(GET_ROUTES) - {"/openapi.json", "/docs"}


@pytest.mark.parametrize("path", GET_ROUTES)
def test_head_answers_what_get_would_without_the_body(service, path):
    head = service.client.head(path)
    with service.client.stream("GET", path) as got:
        assert head.status_code == got.status_code
        assert head.headers.get("content-type") == got.headers.get("content-type")
    assert head.content == b""
    assert service.client.get("/healthz").status_code == 200  # on the same connection


def test_the_head_of_an_endless_stream_leaves_no_listener(service):
    hub = service.hrm.telemetry.hub
    service.wait_for(lambda: not hub._subscriptions)
    assert service.client.head("/v1/telemetry/stream").status_code == 200
    service.wait_for(lambda: not hub._subscriptions)


def test_head_of_a_kept_answer_has_its_tag(service):
    reply = post_vector(service.client, headers={"Prefer": "respond-async, wait=9", "X-Request-Id": "kept"})
    assert reply.status_code == 200
    place = "/v1/refine/kept"
    assert service.client.head(place).headers["ETag"] == service.client.get(place).headers["ETag"]
    service.client.delete(place)


def test_head_of_what_has_no_get_is_405(service):
    head = service.client.head("/v1/scenes")
    assert (head.status_code, head.headers["Allow"]) == (405, "POST")
