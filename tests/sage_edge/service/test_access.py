"""Keys, rates, origins and the count of replies, on a real socket."""

from __future__ import annotations

import re
import ssl

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge import Settings
from sage_edge.config import load_settings
from sage_edge.errors import ConfigError
from sage_edge.keys import add_key
from sage_edge.service.access import RateLimit
from tests.fakes import FakeClock
from tests.quadratic import QuadraticPlugin
from tests.sage_edge.service.conftest import Service
from tests.wire import post_vector


def serve(**settings):
    given_settings = Settings(
        slots=1, queue_size=4, threads=1, telemetry_dir="", board_period_s=0.0, **settings
    )
    return Service({"quadratic": QuadraticPlugin()}, given_settings)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A service that asks for a key, and a key of it."""
    file = tmp_path_factory.mktemp("keys") / "api.keys"
    key = add_key(file, "camera")
    with serve(api_keys_file=str(file)) as running:
        yield running, key


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key", "authorization"])
def test_a_known_key_is_let_in(guarded, header):
    service, key = guarded
    value = f"Bearer {key}" if header.lower() == "authorization" else key
    assert post_vector(service.client, headers={header: value}).status_code == 200
    assert service.client.get("/v1/status", headers={header: value}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic a2V5"},
        {"X-API-Key": ""},
        {"X-API-Key": "x" * 9000},
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/status", "/v1/telemetry", "/metrics", "/v1/refine/quadratic", "/nowhere"]
)
def test_without_one_nothing_is_told(guarded, path, headers):
    service, _ = guarded
    reply = service.client.request("POST" if "refine" in path else "GET", path, headers=headers)
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert reply.json()["error"]["code"] == "unauthorized"
    assert "key" in reply.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/docs"])
def test_health_and_the_description_of_the_api_need_no_key(guarded, path):
    service, _ = guarded
    assert service.client.get(path).status_code == 200


def test_metrics_may_be_opened_apart(tmp_path):
    add_key(tmp_path / "api.keys", "camera")
    with serve(api_keys_file=str(tmp_path / "api.keys"), open_metrics=True) as service:
        assert service.client.get("/metrics").status_code == 200
        assert service.client.get("/v1/telemetry").status_code == 401


def test_every_reply_is_counted_by_its_status(guarded):
    service, key = guarded

    def counted(status):
        page = service.client.get("/metrics", headers={"X-API-Key": key}).text
        found = re.search(rf'^sage_http_replies_total{{status="{status}"}} (\S+)$', page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    before = counted(401), counted(404)
    service.client.get("/v1/status")
    service.client.get("/nowhere", headers={"X-API-Key": key})
    assert (counted(401), counted(404)) == (before[0] + 1, before[1] + 1)


def test_a_key_that_asks_too_often_is_told_when_to_come_again_and_holds_up_no_other(tmp_path):
    file = tmp_path / "api.keys"
    eager, patient = add_key(file, "eager"), add_key(file, "patient")
    with serve(api_keys_file=str(file), key_rate_per_s=0.25, key_burst=3) as service:
        replies = [service.client.get("/v1/plugins", headers={"X-API-Key": eager}) for _ in range(4)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
        assert replies[3].json()["error"]["code"] == "rate_limited"
        assert 1 <= int(replies[3].headers["Retry-After"]) <= 4
        assert service.client.get("/v1/plugins", headers={"X-API-Key": patient}).status_code == 200


@given(st.lists(st.floats(0, 3), max_size=60), st.floats(0.1, 50), st.integers(1, 8))
def test_no_more_than_burst_and_rate_allow_pass_in_any_time(gaps_s, rate_per_s, burst):
    clock = FakeClock()
    limit = RateLimit(rate_per_s, burst, clock)
    passed_s, now_s = [], 0.0
    for gap_s in gaps_s:
        clock.advance(gap_s)
        now_s += gap_s
        wait_s = limit.wait_s("camera")
        assert wait_s <= 1 / rate_per_s + 1e-6
        if wait_s == 0:
            passed_s.append(now_s)
    for first, start_s in enumerate(passed_s):
        for last in range(first, len(passed_s)):
            allowed = burst + (passed_s[last] - start_s) * rate_per_s
            assert last - first + 1 <= allowed + 1e-6


def test_who_waits_as_long_as_told_is_let_in():
    clock = FakeClock()
    limit = RateLimit(3.0, 1, clock)
    assert limit.wait_s("camera") == 0
    wait_s = limit.wait_s("camera")
    clock.advance(wait_s + 1e-9)
    assert limit.wait_s("camera") == 0


def test_browsers_are_told_nothing_unless_their_origin_is_named(guarded, tmp_path):
    asks = {"Origin": "https://panel.example", "Access-Control-Request-Method": "POST"}
    service, _ = guarded
    assert "access-control-allow-origin" not in service.client.options("/v1/status", headers=asks).headers
    add_key(tmp_path / "api.keys", "panel")
    with serve(api_keys_file=str(tmp_path / "api.keys"), cors_origins=("https://panel.example",)) as opened:
        reply = opened.client.options("/v1/refine/quadratic", headers=asks)
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] == "https://panel.example"
        other = opened.client.options("/v1/status", headers=asks | {"Origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_may_be_asked_for_by_its_head(guarded, path):
    service, _ = guarded
    reply = service.client.head(path)
    assert (reply.status_code, reply.content) == (200, b"")


def test_the_page_of_the_api_loads_nothing_from_elsewhere(guarded):
    service, _ = guarded
    page = service.client.get("/docs").text
    links = re.findall(r"(?:src|href)=\"([^\"]+)\"", page)
    assert len(links) >= 2
    for link in links:
        assert link.startswith("/")
        assert service.client.get(link).status_code == 200
    assert "://" not in page


def test_one_half_of_a_certificate_is_refused():
    with pytest.raises(ConfigError, match="both or neither"):
        load_settings({"tls_cert_file": "cert.pem"}, {})


@pytest.mark.heavy
def test_tls_by_files_serves_https_and_only_that(tmp_path, nuclei_bytes, certificate):
    from tests.sage_edge.service.test_process import Process

    cert, key = certificate
    flags = ("--tls-cert-file", cert, "--tls-key-file", key)
    with Process(tmp_path / "telemetry", *flags) as process:
        url = process.client.base_url
        assert url.scheme == "https"
        with httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=cert), timeout=60) as client:
            assert client.get("/healthz").json() == {"live": True}
            assert client.post("/v1/refine/vision", content=nuclei_bytes).status_code == 200
        with (
            httpx.Client(base_url=url.copy_with(scheme="http")) as plain,
            pytest.raises(httpx.TransportError),
        ):
            plain.get("/healthz")


@pytest.fixture
def two_keys(tmp_path):
    """A service, and a way to ask it as one of two callers."""
    keys = {name: add_key(tmp_path / "keys", name) for name in ("alice", "bob")}
    with serve(api_keys_file=str(tmp_path / "keys")) as running:

        def ask(name, method, request_id):
            headers = {"X-API-Key": keys[name]}
            if method != "POST":
                return running.client.request(method, f"/v1/refine/{request_id}", headers=headers).status_code
            headers |= {"X-Request-Id": request_id, "Prefer": "respond-async, wait=30"}
            return post_vector(running.client, headers=headers).status_code

        yield ask


def test_an_answer_is_read_and_deleted_with_the_key_that_it_was_posted_with_alone(two_keys):
    assert two_keys("alice", "POST", "camera-1") == 200
    for method in ("GET", "DELETE"):
        assert two_keys("bob", method, "camera-1") == 404
    assert two_keys("alice", "GET", "camera-1") == 200
    assert two_keys("alice", "DELETE", "camera-1") == 204
    assert two_keys("alice", "GET", "camera-1") == 404


def test_a_name_that_one_key_has_given_is_free_for_another(two_keys):
    for name in ("bob", "alice"):
        assert two_keys(name, "POST", "camera-1") == 200
        assert two_keys(name, "POST", "camera-1") == 422
    assert two_keys("bob", "DELETE", "camera-1") == 204
    assert two_keys("alice", "GET", "camera-1") == 200
