"""Plugins of the protocol's own methods over HTTP: served as they are, and refused when they are broken."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from sage_edge import DOCUMENT, HRM, Answer, Settings
from sage_edge.telemetry import TelemetryValidator, load_schema
from sage_edge.telemetry.audit import verify
from tests.quadratic import QuadraticPlugin
from tests.sage_edge.service.conftest import Service
from tests.seed_plugins import Counting, Halving

ROOT = Path(__file__).parents[3]
TENSOR = {"Content-Type": "application/octet-stream", "Sage-Tensor-Dtype": "float32"}


def post(client, plugin, values, **options):
    content = np.asarray(values, np.float32)
    headers = {**TENSOR, "Sage-Tensor-Shape": ",".join(map(str, content.shape)), **options.pop("headers", {})}
    return client.post(f"/v1/refine/{plugin}", content=content.tobytes(), params=options, headers=headers)


class Links(Halving):
    """Takes a document.

    State space: float64 [n].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target.
    Coherence contribution: the fall of that distance.
    """

    takes = DOCUMENT

    def prepare(self, x):
        return np.asarray(x["target"], float)

    def decode(self, state):
        return Answer(state.x, details={"steps_seen": state.step_idx})


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Four plugins at once, three of them with the seed's methods alone, and their telemetry."""
    folder = tmp_path_factory.mktemp("telemetry")
    plugins = {"plain": Halving(), "counting": Counting(), "links": Links(), "latent": QuadraticPlugin()}
    settings = Settings(slots=3, threads=1, telemetry_dir=str(folder), audit_every=64)
    with Service(plugins, settings) as service:
        yield service, plugins, folder


def test_what_is_overridden_is_called_once_for_each_state_of_every_request(served):
    service, plugins, _ = served
    counting = plugins["counting"]
    counting.calls.clear()
    replies = [post(service.client, "counting", np.full(4, 1.0 + n)) for n in range(40)]
    assert {reply.status_code for reply in replies} == {200}
    bodies = [reply.json() for reply in replies]
    assert {body["halt_reason"] for body in bodies} == {"confidence"}
    states = sum(body["steps"] + 1 for body in bodies)
    for method in ("energy", "project", "feasible", "gap", "halt", "emit_telemetry"):
        assert counting.calls[method] == states, method
    assert counting.calls["step"] == states - 40
    assert {counting.calls[method] for method in ("init_state", "decode", "trust", "prepare")} == {40}

    def records_of(name):
        lines = service.client.get("/v1/telemetry?limit=4096").text.splitlines()
        return [record for record in map(json.loads, lines) if record.get("plugin") == name]

    service.wait_for(lambda: len(records_of("counting")) >= states)
    own = [record["extra"] for record in records_of("counting")]
    assert all(extra.keys() == {"distance"} for extra in own)
    assert all(record["extra"] is None for record in records_of("plain"))


def test_all_four_answer_and_the_journal_of_it_is_sound(served):
    service, _, folder = served
    answers = {
        "plain": post(service.client, "plain", np.full(4, 2.0)),
        "counting": post(service.client, "counting", np.full(4, 2.0)),
        "links": service.client.post("/v1/refine/links", json={"problem": {"target": [2.0] * 4}}),
        "latent": post(service.client, "latent", np.full(6, 2.0)),
    }
    for name, reply in answers.items():
        assert reply.status_code == 200, reply.text
        answer = reply.json()["answer"]
        kind = np.float32 if name == "latent" else np.float64
        np.testing.assert_allclose(np.frombuffer(_bytes(answer), kind), 2.0, atol=0.2)
    assert answers["links"].json()["answer"]["steps_seen"] == answers["links"].json()["answer_step"]
    service.wait_for((folder / "telemetry.jsonl").exists)
    report = verify(folder, validator=TelemetryValidator(load_schema()))
    assert not [line for line in report.lines() if "invalid" in line], report.lines()


def _bytes(answer):
    return base64.b64decode(answer["base64"])


def test_streams_branches_scenes_events_and_later_answers_work(served):
    client = served[0].client
    assert post(client, "plain", np.ones(4), branches=3, stream_id="arm").json()["branches"] == 3
    assert post(client, "plain", np.ones(4), deadline_ms=5000).json()["halt_reason"] == "slope<eps"
    assert post(client, "plain", np.ones(4), atp=1e-9).json()["halt_reason"] == "budget"
    events = post(client, "plain", np.ones(4), headers={"Accept": "text/event-stream"}).text
    assert events.count("event: step") == post(client, "plain", np.ones(4)).json()["steps"] + 1
    members = [{"plugin": "links", "problem": {"target": [1.0] * 4}}] * 2
    scene = client.post("/v1/scenes", json={"members": members, "atp": 1e4}).json()
    assert [result["plugin"] for result in scene["results"]] == ["links"] * 2
    later = post(client, "plain", np.ones(4), headers={"Prefer": "respond-async"})
    assert later.status_code == 202
    served[0].wait_for(lambda: client.get(later.headers["Location"]).status_code == 200)


class Moody(Halving):
    """Fails where the target says so.

    State space: float64 [n].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target.
    Coherence contribution: the fall of that distance.
    """

    def step(self, state, noise_schedule):
        if state.meta["target"][0] == 666.0 and state.step_idx == 2:
            raise RuntimeError("a secret at /srv/alice")
        return super().step(state, noise_schedule)


def test_one_requests_failure_is_its_own_and_a_plugin_that_always_fails_is_told_of():
    settings = Settings(slots=4, threads=1, telemetry_dir="")
    with Service({"moody": Moody(), "plain": Halving()}, settings) as service:
        client = service.client
        for _ in range(3):
            bad, good = post(client, "moody", np.full(4, 666.0)), post(client, "moody", np.ones(4))
            assert (bad.status_code, good.status_code) == (500, 200)
            error = bad.json()["error"]
            assert error == {"code": "plugin_failed", "message": "moody.step: raised RuntimeError"}
        assert client.get("/readyz").json()["problems"] == []
        for _ in range(5):
            post(client, "moody", np.full(4, 666.0))
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["problems"]) == (200, ["plugin_failing:moody"])
        assert post(client, "plain", np.ones(4)).status_code == 200
        post(client, "moody", np.ones(4))
        assert client.get("/readyz").json()["problems"] == []


class Talkative(Halving):
    """Says of its answers what it is asked to say.

    State space: float64 [n].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target.
    Coherence contribution: the fall of that distance.
    """

    def decode(self, state):
        said = {1.0: 0.5, 2.0: float("nan"), 3.0: np.float32(1.0), 4.0: {1, 2}}[state.meta["target"][0]]
        return Answer(state.x, details={"said": said})

    def trust(self, E_norm):
        return float("nan")


@pytest.mark.parametrize("form", ["json", "scene", "events"])
def test_details_that_json_has_no_word_for_fail_that_request_alone(form):
    def ask(client, value):
        if form == "json":
            return post(client, "links", np.full(4, value)).text
        if form == "events":
            return post(client, "links", np.full(4, value), headers={"Accept": "text/event-stream"}).text
        frame = {"base64": base64.b64encode(np.full(4, value, np.float32).tobytes()).decode()}
        member = {"plugin": "links", "frame": {**frame, "shape": [4], "dtype": "float32"}}
        return client.post("/v1/scenes", json={"members": [member]}).text

    with Service({"links": Talkative()}, Settings(slots=2, threads=1, telemetry_dir="")) as service:
        for value in (2.0, 3.0, 4.0):
            assert "links.decode: details: expected what JSON has" in ask(service.client, value)
        sound = ask(service.client, 1.0)
        assert '"said":0.5' in sound.replace(" ", "")
        assert '"trust":null' in sound.replace(" ", "")


def test_no_code_of_a_plugin_runs_on_the_thread_of_the_telemetry():
    threads = set()

    class Watched(Counting):
        def __getattribute__(self, name):
            threads.add(threading.current_thread().name)
            return super().__getattribute__(name)

    with Service({"watched": Watched()}, Settings(slots=2, threads=1, telemetry_dir="")) as service:
        threads.clear()
        assert post(service.client, "watched", np.ones(4)).status_code == 200
        service.wait_for(lambda: service.client.get("/v1/telemetry").text.count("watched") >= 5)
    assert "refine-watched" in threads
    assert not [name for name in threads if "drain" in name]


# At the door, as a process


HEAD = """
import numpy as np
from sage_edge import Invariants, IRPPlugin, IRPState

class Naive(IRPPlugin):
    '''State space: a. Noise model: b. Energy: c. Coherence contribution: d.'''
    invariants = Invariants("picture", "gaussian", "roughness", "squared grey levels")

    def init_state(self, x0, task_ctx):
        return IRPState(np.asarray(x0, float).mean(axis=-1))

    def energy(self, state):
        return float(np.mean(np.diff(state.x) ** 2))

    def step(self, state, noise_schedule):
        return IRPState(0.9 * state.x, state.step_idx + 1, state.meta)
"""
#: What stands in the class besides, and what is said of it.
BROKEN = {
    "    def step(self, state, noise):\n        raise OSError('no')": "naive.step: raised OSError: no",
    "    def energy(self, state):\n        return float('nan')": "naive: energy: is not a number",
    "    def energy(self, state):\n        return state.x": "naive.energy: expected a float, got ndarray",
    "    def step(self, state, noise):\n        return state": "naive.step: expected step_idx 1, got 0",
    "    def decode(self, state):\n        raise SystemExit(3)": "naive.decode: raised SystemExit: 3",
    "    def example(self):\n        return self.nothing": "naive.example: raised AttributeError",
    "    profiles = ('workstation',)": "naive is for the profile workstation, not for edge",
    "    step = 3": "naive.step: raised TypeError",
    "    def __init__(self, config):\n        raise ValueError('x')": "naive.__init__: raised ValueError: x",
}


def serve(folder, *flags):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SAGE_")}
    program = [
        sys.executable,
        "-m",
        "sage_edge",
        "serve",
        "--port",
        "0",
        "--threads",
        "1",
        "--telemetry-dir",
        "",
    ]
    chosen = ["--plugins", "naive", "--set", "naive.class=naive:Naive", *flags]
    return subprocess.run(
        [*program, *chosen], cwd=folder, capture_output=True, text=True, timeout=60, env=kept, check=False
    )


@pytest.mark.parametrize("body", BROKEN)
def test_a_broken_plugin_stops_the_start_in_one_line_with_exit_code_2(tmp_path, body):
    (tmp_path / "naive.py").write_text(HEAD + textwrap.dedent("\n") + body + "\n")
    done = serve(tmp_path)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("sage-edge: ")
    assert BROKEN[body] in lines[0]


def test_a_plugin_whose_steps_take_seconds_is_said_to_be_slow(caplog):
    from tests.fakes import FakeClock

    clock = FakeClock()

    class Sleepy(Halving):
        def step(self, state, noise_schedule):
            clock.advance(1.5)
            return super().step(state, noise_schedule)

    hrm = HRM(Settings(slots=2, threads=1, telemetry_dir="", board_period_s=0), {"sleepy": Sleepy()}, clock)
    with hrm:
        hrm.warm_up()
    assert "slow steps plugin=sleepy step_s=1.5" in caplog.text


def test_a_warm_up_that_fails_after_the_check_unwinds_without_an_abort(tmp_path):
    """The plugin is sound until its third step, which the warm-up takes and the check does not."""
    body = (
        "    count = 0\n"
        "    def step(self, state, noise_schedule):\n"
        "        Naive.count += 1\n"
        "        if Naive.count > 6:\n"
        "            raise RuntimeError('worn out')\n"
        "        return IRPState(0.9 * state.x, state.step_idx + 1, state.meta)\n"
    )
    (tmp_path / "naive.py").write_text(HEAD + body)
    done = serve(tmp_path)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "naive.step: raised RuntimeError: worn out" in done.stderr
    assert "Traceback" not in done.stderr
