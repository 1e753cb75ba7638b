"""While engines are built at the start the socket answers: alive, not ready, and how far it is."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from sage_edge import Settings
from sage_edge.errors import EngineError
from sage_edge.runtime.building import BuildState, Built, Machine, PlanBuilder
from sage_edge.runtime.plans import PlanStore
from sage_edge.service.server import _listen
from sage_edge.service.starting import build_missing_engines, build_while_answering
from tests.fake_tensorrt import recipe
from tests.fakes import FakeClock


class HeldBuild:
    """Builds as far as the test lets it."""

    def __init__(self):
        self.halfway = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, onnx, width, advance, cache):
        advance(0.5)
        self.halfway.set()
        self.go_on.wait(30)
        if not advance(1.0):
            raise EngineError("called off")
        return Built(onnx, b"")


def builder(folder, build, sm="8.7"):
    return PlanBuilder(PlanStore(folder / "engines"), Machine("tensorrt-10.3.0", sm, 1, build), FakeClock())


@pytest.fixture
def listener():
    with _listen("127.0.0.1", 0) as socket:
        yield socket


def url(listener):
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_the_service_is_alive_and_says_how_far_the_build_is_until_it_is_done(tmp_path, listener):
    build, recipes = HeldBuild(), [recipe(tmp_path, widths=(1, 4))]
    planner = builder(tmp_path, build)
    with ThreadPoolExecutor(1) as starting, httpx.Client(base_url=url(listener), timeout=30) as client:
        started = starting.submit(build_while_answering, planner, recipes, listener, Settings())
        assert build.halfway.wait(30)
        assert client.get("/healthz").json() == {"live": True}
        assert client.head("/healthz").status_code == 200
        assert client.head("/readyz").status_code == 503
        ready = client.get("/readyz")
        refused = client.post("/v1/refine/vision?max_steps=1", content=b"frame")
        build.go_on.set()
        assert started.result(30) is True
    assert (ready.status_code, ready.headers["Retry-After"]) == (503, "1")
    assert ready.headers["Connection"] == "close"
    document = ready.json()
    progress = document.pop("progress")
    assert document == {"ready": False, "state": "building_engine"}
    assert progress.pop("elapsed_s") >= 0
    assert progress.pop("remaining_s") >= 0
    assert progress == {"plan": "net.step.fp16.b1", "done": 0, "total": 2, "fraction": 0.25}
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    error = refused.json()["error"]
    assert error["code"] == "building_engine"
    assert "net.step.fp16.b1 (1 of 2)" in error["message"]
    assert {verdict.state for verdict in planner.verdicts(recipes).values()} == {"ready"}


def test_the_build_is_told_by_tls_where_tls_is_set(tmp_path, listener, certificate):
    build, (cert, key) = HeldBuild(), certificate
    settings = Settings(tls_cert_file=str(cert), tls_key_file=str(key))
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    with (
        ThreadPoolExecutor(1) as starting,
        httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=cert), timeout=30) as client,
    ):
        started = starting.submit(
            build_while_answering, builder(tmp_path, build), [recipe(tmp_path)], listener, settings
        )
        try:
            assert client.get("/readyz").json()["state"] == "building_engine"
        finally:
            build.go_on.set()
        assert started.result(30) is True


def test_the_listener_is_left_open_for_the_service(tmp_path, listener):
    build = HeldBuild()
    build.go_on.set()
    assert build_while_answering(builder(tmp_path, build), [recipe(tmp_path)], listener, Settings())
    listener.settimeout(10)
    with httpx.Client() as client, ThreadPoolExecutor(1) as caller:
        reply = caller.submit(client.get, url(listener), timeout=10)
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        assert reply.result().status_code == 204


def test_with_every_plan_there_nothing_is_built(tmp_path, listener):
    recipes, build = [recipe(tmp_path)], HeldBuild()
    build.go_on.set()
    builder(tmp_path, build).build(recipes, BuildState(FakeClock()))
    build.halfway.clear()
    assert build_while_answering(builder(tmp_path, build), recipes, listener, Settings())
    assert not build.halfway.is_set()


def test_a_foreign_plan_stops_the_start_in_one_line_and_is_not_overwritten(tmp_path, listener):
    recipes, build = [recipe(tmp_path)], HeldBuild()
    build.go_on.set()
    builder(tmp_path, build).build(recipes, BuildState(FakeClock()))
    elsewhere = builder(tmp_path, build, sm="9.0")
    with pytest.raises(EngineError) as caught:
        build_while_answering(elsewhere, recipes, listener, Settings())
    assert str(caught.value) == (
        "net.step.fp16.b1: foreign plan: sm: expected 9.0, built with 8.7; run `sage-edge engines build`"
    )
    assert elsewhere.verdicts(recipes)["net.step.fp16.b1"].state == "foreign"


def test_a_build_that_fails_stops_the_start_with_its_reason(tmp_path, listener):
    def build(onnx, width, advance, cache):
        raise EngineError("types differ")

    with pytest.raises(EngineError, match=r"net\.step\.fp16\.b1: types differ"):
        build_while_answering(builder(tmp_path, build), [recipe(tmp_path)], listener, Settings())


def test_on_the_cpu_nothing_is_built_before_serving(listener):
    assert build_missing_engines(Settings(backend="cpu"), listener) is True


_STARTING = """
import sys
from pathlib import Path
from sage_edge import Settings
from sage_edge.errors import EngineError
from sage_edge.service.server import _listen
from sage_edge.service.starting import build_while_answering
from tests.fake_tensorrt import recipe
from tests.sage_edge.service.test_starting import HeldBuild, builder

class Endless(HeldBuild):
    def __call__(self, onnx, width, advance, cache):
        while advance(0.5):
            self.go_on.wait(0.01)
        raise EngineError("called off")

folder, listener = Path(sys.argv[1]), _listen("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
print(build_while_answering(builder(folder, Endless()), [recipe(folder)], listener, Settings()))
"""


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_build_and_the_start(tmp_path, number):
    with subprocess.Popen(
        [sys.executable, "-c", _STARTING, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        port = int(process.stdout.readline())
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=60).json() == {"live": True}
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "False\n")


def test_the_readiness_document_is_plain_json(tmp_path):
    from sage_edge.service.starting import readiness

    state = BuildState(FakeClock())
    assert json.loads(json.dumps(readiness(state.snapshot())))["progress"]["remaining_s"] is None


def test_plugins_without_networks_do_not_ask_for_a_backend_that_is_not_here(listener):
    assert build_missing_engines(Settings(plugins=("control",), backend="tensorrt"), listener)
