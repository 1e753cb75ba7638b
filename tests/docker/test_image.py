"""The image as a board runs it: small, shut in, measured by Prometheus, and without loss when it ends.

``make image-test``: needs root, podman and Debian's packages.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time

import httpx
import pytest

from tests.docker.conftest import BASE, ROOT

pytestmark = pytest.mark.container

MIB = 1 << 20


class Load:
    """Posts frames over several connections until the service is gone; keeps what was answered."""

    def __init__(self, container, frame, connections=6):
        self._frame, self._url = frame, container.client.base_url
        self.answered, self.refused = {}, []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(connections)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._stop.is_set():
                try:
                    reply = client.post("/v1/refine/vision", content=self._frame, params={"eps": 0})
                except httpx.TransportError:
                    return
                with self._lock:
                    if reply.status_code == 200:
                        self.answered[reply.json()["request_id"]] = reply.json()["steps"]
                    else:
                        self.refused.append(reply.status_code)

    def wait_for(self, count):
        give_up_s = time.monotonic() + 60
        while len(self.answered) < count:
            assert time.monotonic() < give_up_s, f"{len(self.answered)} answers"
            threading.Event().wait(0.01)

    def join(self):
        for thread in self._threads:
            thread.join(60)

    def stop(self):
        self._stop.set()
        self.join()


def records_of(container):
    """All records, whose ``seq`` must have no gap, and those of them that are steps."""
    records = [json.loads(line) for line in container.run("cat", "telemetry/telemetry.jsonl").splitlines()]
    first = records[0]["seq"]
    assert [record["seq"] for record in records] == list(range(first, first + len(records)))
    return records, [record for record in records if record["kind"] == "step"]


def test_the_image_is_small_and_holds_no_compiler_no_pip_and_no_torch(podman, image, start):
    whole, base = (int(podman("image", "inspect", name, "--format", "{{.Size}}")) for name in (image, BASE))
    print(f"\nimage {whole / MIB:.0f} MiB, {(whole - base) / MIB:.0f} MiB of them ours")
    assert whole < 500e6  # the reader of texts, tokenizers and what that brings along are 60e6 of it
    assert whole - base < 320e6
    assert "healthcheck.py" in podman("image", "inspect", image, "--format", "{{json .HealthCheck}}")
    container = start()
    look = "for tool in cc gcc g++ c++ clang nvcc cmake pip; do command -v $tool; done; true"
    assert container.run("sh", "-c", look) == ""
    assert container.run("python3", "-c", "import importlib.util as u; print(u.find_spec('torch'))") == "None"


def test_it_serves_frames_as_a_user_without_rights_from_a_file_system_without_writing(
    podman, start, nuclei_bytes
):
    container = start()
    first = container.post(nuclei_bytes)
    cold_s = time.monotonic() - container.start_s
    assert first.status_code == 200
    again = container.post(nuclei_bytes, deadline_ms=5000).json()
    print(
        f"\n{cold_s:.1f} s from start to first answer; a frame takes {again['time_ms']['total']:.0f} ms then"
    )
    status = dict(line.split(":\t", 1) for line in container.run("cat", "/proc/1/status").splitlines())
    assert status["Uid"].split() == ["10001"] * 4
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    written = container.run("sh", "-c", "touch /opt/sage-edge/x /etc/x /x 2>&1 | grep -c 'Read-only'; true")
    assert written == "3"
    assert podman("healthcheck", "run", container.name) == ""
    assert container.run("sage-edge", "doctor").splitlines()[0].startswith("system")


def test_a_volume_that_cannot_be_written_costs_the_records_and_nothing_else(start, nuclei_bytes):
    container = start(access="ro")
    reply = container.post(nuclei_bytes)
    assert (reply.status_code, reply.json()["is_partial"]) == (200, False)
    problems = container.client.get("/readyz").json()["problems"]
    assert sorted(problems) == ["reputation_not_kept", "telemetry_journal_failed"]
    assert "Read-only file system" in container.log()
    assert "reputation_not_kept" in container.log()
    assert container.run("sh", "-c", "ls telemetry | wc -l") == "0"
    assert "no folder that can be written to" in container.run("sage-edge", "doctor")


def test_it_refines_at_full_load_within_512_mib(podman, start, nuclei_bytes):
    container = start()
    load = Load(container, nuclei_bytes, connections=12)
    load.wait_for(60)
    used = podman("stats", "--no-stream", "--format", "{{.MemUsage}}", container.name)
    load.stop()
    print(f"\nmemory under load: {used}")
    assert not load.refused
    assert container.inspect("{{.State.OOMKilled}} {{.RestartCount}}") == "false 0"
    assert used.endswith("/ 536.9MB")


def test_a_real_prometheus_scrapes_it(start, nuclei_bytes, tmp_path):
    container = start()
    for _ in range(3):
        assert container.post(nuclei_bytes).status_code == 200
    target = f"{container.client.base_url.host}:{container.client.base_url.port}"
    shutil.copytree(ROOT / "docker" / "prometheus", tmp_path / "prometheus")
    config = tmp_path / "prometheus" / "prometheus.yml"
    config.write_text(
        config.read_text().replace("sage-edge:8080", target).replace("interval: 5s", "interval: 1s")
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = [f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address={listen}"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(["prometheus", f"--config.file={config}", *flags], stderr=log)
        try:
            found = query(f"http://{listen}", 'sage_requests_total{outcome="answered"}')
            alerts = httpx.get(f"http://{listen}/api/v1/rules").json()["data"]["groups"][0]["rules"]
        finally:
            server.terminate()
            server.wait(30)
    assert [(series["metric"]["instance"], series["value"][1]) for series in found] == [(target, "3")]
    assert {rule["health"] for rule in alerts} <= {"ok", "unknown"}


def query(url, expression):
    """A query's series, once there are any."""
    give_up_s = time.monotonic() + 30
    while time.monotonic() < give_up_s:
        try:
            reply = httpx.get(f"{url}/api/v1/query", params={"query": expression})
        except httpx.TransportError:
            reply = None
        if reply and reply.status_code == 200 and reply.json()["data"]["result"]:
            return reply.json()["data"]["result"]
        threading.Event().wait(0.2)
    raise AssertionError(f"{expression} was not scraped")


def test_sigterm_under_load_answers_every_accepted_request(podman, start, nuclei_bytes):
    container = start()
    load = Load(container, nuclei_bytes)
    load.wait_for(20)
    podman("stop", "--time", "30", container.name)
    load.join()
    assert container.inspect("{{.State.ExitCode}}") == "0"
    later = start()
    _, steps = records_of(later)
    final = {record["request_id"]: record["step_idx"] for record in steps if record["halt_reason"]}
    assert final == load.answered
    assert {record["request_id"] for record in steps} == set(final)
    assert set(load.refused) <= {503}


def test_sigkill_under_load_leaves_valid_telemetry_and_a_restart_goes_on(podman, start, nuclei_bytes):
    container = start()
    load = Load(container, nuclei_bytes)
    load.wait_for(20)
    podman("kill", "--signal", "KILL", container.name)
    load.join()
    later = start()
    assert "0 invalid" in later.run("sage-edge", "telemetry", "validate", "telemetry/telemetry.jsonl")
    assert "sound" in later.run("sage-edge", "audit", "verify", "telemetry")
    _, before = records_of(later)
    assert later.post(nuclei_bytes, max_steps=1, eps=0).status_code == 200
    podman("stop", "--time", "30", later.name)
    _, steps = records_of(start())
    assert len(steps) == len(before) + 2
    final = {record["request_id"] for record in steps if record["halt_reason"]}
    last = 2 * 6  # two of each connection: what the drain had not come to when the process was killed
    assert set(list(load.answered)[:-last]) <= final
