"""`sage-edge serve` as a process: how it starts, ends, and outlives a bad disk."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sage_edge.config import shared_file
from sage_edge.errors import ConfigError
from sage_edge.service.server import _listen
from sage_edge.telemetry import TelemetryValidator, load_schema, validate_file
from sage_edge.telemetry.audit import verify

FRAME_URL = "/v1/refine/vision"
#: Steps enough for the test to act while the request is in flight.
LONG = {"max_steps": 64, "eps": 0}


def command(*flags):
    return [sys.executable, "-m", "sage_edge", "serve", "--port", "0", "--threads", "1", *map(str, flags)]


def clean_environment(**variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SAGE_")}
    return kept | variables


class Process:
    """A serving process with a slot for one request, so that the others wait."""

    def __init__(self, telemetry_dir, *flags):
        self.file = telemetry_dir / "telemetry.jsonl"
        self._process = subprocess.Popen(
            command("--slots", 1, "--telemetry-dir", telemetry_dir, *flags),
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(),
        )
        self.log = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self._process.stderr:
            self.log.append(line)

    def __enter__(self):
        self.wait_for(lambda: self.logged("serving url="))
        url = re.search(r"url=(\S+)", "".join(self.log))[1]
        self.client = httpx.Client(base_url=url, timeout=60)
        return self

    def __exit__(self, *_):
        self.client.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(30)
        self._reader.join()
        self._process.stderr.close()

    def logged(self, text):
        return [line for line in self.log if text in line]

    def wait_for(self, condition, within_s=60.0):
        give_up_s = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < give_up_s, "".join(self.log)
            threading.Event().wait(0.01)

    def post(self, frame, **budget):
        return self.client.post(FRAME_URL, content=frame, params=budget)

    def limit_files(self, size_bytes):
        """Let no file of the process grow beyond a size, as a full disk would."""
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size_bytes, size_bytes))

    def send(self, number):
        self._process.send_signal(number)

    def ended(self):
        return self._process.wait(60)

    def lane(self):
        return self.client.get("/v1/status").json()["plugins"]["vision"]

    def problems(self):
        """What serving outlives, while it is ready."""
        reply = self.client.get("/readyz")
        assert (reply.status_code, reply.json()["state"]) == (200, "ready")
        return reply.json()["problems"]

    def lost(self):
        return self.client.get("/v1/status").json()["telemetry"]["lost_journal"]


def records(file):
    report = validate_file(file, TelemetryValidator(load_schema()))
    assert report.invalid == []
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_every_accepted_request_finish_and_writes_its_records(tmp_path, nuclei_bytes, number):
    with Process(tmp_path) as process, ThreadPoolExecutor(3) as callers:
        replies = [callers.submit(process.post, nuclei_bytes, **LONG) for _ in range(3)]
        process.wait_for(lambda: process.lane()["waiting"] == 2)
        process.send(number)
        assert [reply.result().status_code for reply in replies] == [200] * 3
        assert process.ended() == 0
        process.wait_for(lambda: process.logged("stopped"))
        assert process.logged("draining")
        assert not process.logged("Traceback")
    written = records(process.file)
    steps = [record for record in written if record["kind"] == "step"]
    final = {record["request_id"]: record["halt_reason"] for record in steps if record["halt_reason"]}
    assert final == {reply.result().json()["request_id"]: "max_steps" for reply in replies}
    assert len(steps) == 3 * 65
    assert_numbered_without_a_gap(written)


def test_a_caller_that_never_finishes_does_not_hold_up_the_end(tmp_path, nuclei_bytes):
    with Process(tmp_path, "--drain-s", 1) as process:
        assert process.post(nuclei_bytes).status_code == 200
        url = process.client.base_url
        with socket.create_connection((url.host, url.port)) as caller:
            caller.sendall(b"POST /v1/refine/vision HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
            with process.client.stream("GET", "/v1/telemetry/stream") as stream:
                lines = stream.iter_raw()
                next(lines)
                start_s = time.monotonic()
                process.send(signal.SIGTERM)
                assert process.ended() == 0
                assert time.monotonic() - start_s < 10
                assert not [line for line in lines if b'"kind": "step"' in line]
        process.wait_for(lambda: process.logged("stopped"))


def test_after_kill_9_a_restart_goes_on_where_the_file_ends(tmp_path, nuclei_bytes):
    with Process(tmp_path) as process, ThreadPoolExecutor(1) as caller:
        assert process.post(nuclei_bytes, max_steps=3, eps=0).status_code == 200
        unlucky = caller.submit(process.post, nuclei_bytes, **LONG)
        process.wait_for(lambda: process.file.exists() and len(process.file.read_bytes().splitlines()) > 6)
        process.send(signal.SIGKILL)
        assert process.ended() == -signal.SIGKILL
        with pytest.raises(httpx.TransportError):
            unlucky.result()
    with process.file.open("ab") as file:
        file.write(b'{"cut off in the mid')
    with Process(tmp_path) as process:
        before = records(process.file)
        assert process.logged("telemetry_torn_line")
        assert process.post(nuclei_bytes, max_steps=3, eps=0).status_code == 200
        process.send(signal.SIGTERM)
        assert process.ended() == 0
    after = records(process.file)
    assert after[: len(before)] == before
    assert_numbered_without_a_gap(after)
    final = [record for record in after if record["kind"] == "step"][-1]
    assert final["halt_reason"] == "max_steps"
    assert after[-1]["signed_hash"] == after[-2]["record_hash"]


def test_after_kill_9_in_mid_write_the_chain_verifies_and_goes_on(tmp_path, nuclei_bytes):
    def audit():
        report = verify(tmp_path, validator=TelemetryValidator(load_schema()))
        assert report.findings == []
        return report

    def die_in_mid_write():
        with Process(tmp_path, "--audit-every", 8) as process, ThreadPoolExecutor(1) as caller:
            earlier = len(process.file.read_bytes())
            unlucky = caller.submit(process.post, nuclei_bytes, **LONG)
            process.wait_for(lambda: len(process.file.read_bytes()) > earlier + 30_000)
            process.send(signal.SIGKILL)
            assert process.ended() == -signal.SIGKILL
            with pytest.raises(httpx.TransportError):
                unlucky.result()

    for deaths in (1, 2):
        die_in_mid_write()
        report = audit()
        assert report.checkpoints > 0
        assert report.cut_off == deaths
    with Process(tmp_path) as process:
        assert process.post(nuclei_bytes, max_steps=3, eps=0).status_code == 200
        process.send(signal.SIGTERM)
        assert process.ended() == 0
    report = audit()
    assert (report.runs, report.cut_off, report.unsigned) == (1, 2, 0)
    assert report.records == len(records(process.file))


# Starts that must fail


def assert_refused_to_start(flags, *words, file=None, environment=None):
    """One line on stderr that says why, exit code 2, nothing on stdout."""
    arguments = command(*flags)
    if file:
        arguments += ["--config", str(file)]
    ended = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        env=clean_environment(**(environment or {})),
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("sage-edge: ")
    for word in words:
        assert word in ended.stderr


def test_a_port_in_use_stops_the_start():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused_to_start(["--port", port], f"127.0.0.1 port {port}", "in use", "--port")


def test_of_two_that_start_together_on_one_port_only_one_gets_it():
    with _listen("127.0.0.1", 0) as first, pytest.raises(ConfigError, match="in use"):
        _listen("127.0.0.1", first.getsockname()[1])


def test_an_address_that_is_none_stops_the_start():
    assert_refused_to_start(["--host", "999.0.0.1"], "cannot listen on 999.0.0.1", "--host")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--plugins", "audio"], ["plugins", "vision", "'audio'"]),
        (["--slots", "0"], ["slots: expected at least 1, got 0"]),
        (["--port", "many"], ["--port", "expected int", "'many'"]),
        (["--profile", "desktop"], ["profile", "edge, workstation", "'desktop'"]),
        (["--config", "nowhere.toml"], ["nowhere.toml", "No such file"]),
        (["--set", "vision.model=nowhere"], ["plugins.vision: model", "'nuclei'", "'nowhere'"]),
    ],
)
def test_a_bad_flag_stops_the_start(flags, words):
    assert_refused_to_start(flags, *words)


def test_a_backend_that_does_not_load_stops_the_start_and_nothing_falls_back(tmp_path):
    (tmp_path / "tensorrt.py").write_text(
        "raise ImportError('libnvinfer.so.10: cannot open shared object file')"
    )
    assert_refused_to_start(
        ["--backend", "tensorrt"],
        "tensorrt is installed but does not load: libnvinfer.so.10",
        environment={"PYTHONPATH": str(tmp_path)},
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("sluts = 4", ["unknown setting 'sluts'", "slots"]),
        ('slots = "many"', ["slots: expected int, got 'many'"]),
        ("slots = ", ["not valid TOML"]),
    ],
)
def test_a_bad_key_in_the_file_stops_the_start(tmp_path, content, words):
    file = tmp_path / "sage.toml"
    file.write_text(content)
    assert_refused_to_start([], "sage.toml", *words, file=file)


def test_a_bad_key_in_the_environment_stops_the_start():
    assert_refused_to_start([], "SAGE_SLOT", "unknown setting 'slot'", environment={"SAGE_SLOT": "4"})


@pytest.fixture
def model(tmp_path):
    """A copy of the model that ships, to be broken."""
    return shutil.copytree(shared_file("engines/vision/models/nuclei"), tmp_path / "model")


def corrupt(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("graph", ["encoder", "step", "decoder"])
def test_an_engine_file_with_one_wrong_bit_stops_the_start(model, graph):
    corrupt(model / f"{graph}.fp32.onnx")
    assert_refused_to_start(
        ["--set", f"vision.model={model}"], f"{graph}.fp32.onnx", "expected sha256", "restore"
    )


def test_a_missing_engine_file_stops_the_start(model):
    (model / "step.fp32.onnx").unlink()
    assert_refused_to_start(["--set", f"vision.model={model}"], "step.fp32.onnx", "No such file")


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("{", ["not a usable manifest"]),
        ("[]", ["not a usable manifest"]),
        ('{"format": 99}', ["expected format 1, got 99"]),
        ('{"format": 1}', ["not a usable manifest", "files"]),
    ],
)
def test_a_bad_manifest_stops_the_start(model, manifest, words):
    (model / "manifest.json").write_text(manifest)
    assert_refused_to_start(["--set", f"vision.model={model}"], "manifest.json", *words)


def test_an_audit_key_that_is_none_stops_the_start(tmp_path):
    (tmp_path / "key.pem").write_text("secret")
    flags = ["--telemetry-dir", tmp_path / "telemetry", "--audit-key", tmp_path / "key.pem"]
    assert_refused_to_start(flags, "audit_key", "key.pem", "expected an Ed25519 private key")


def test_a_telemetry_file_that_is_something_else_stops_the_start(tmp_path):
    (tmp_path / "telemetry.jsonl").write_text("Dear diary\n")
    assert_refused_to_start(["--telemetry-dir", tmp_path], "telemetry_dir", "Dear diary", "move it away")


# A bad disk


def assert_numbered_without_a_gap(written):
    first = written[0]["seq"]
    assert [record["seq"] for record in written] == list(range(first, first + len(written)))


def assert_serves_and_counts(process, frame, lost):
    for _ in range(3):
        assert process.post(frame, max_steps=3, eps=0).status_code == 200
    process.wait_for(lambda: process.lost() >= lost)
    metrics = process.client.get("/metrics").text
    assert int(re.search(r'sage_telemetry_lost_total\{stage="journal"\} (\d+)', metrics)[1]) >= lost
    assert len(process.logged("telemetry_journal_failed")) == 1
    assert "telemetry_journal_failed" in process.problems()
    assert process.client.get("/v1/telemetry").text.count('"kind":"step"') == 12


def test_a_telemetry_directory_that_cannot_be_is_said_once_and_counted(tmp_path, nuclei_bytes):
    (tmp_path / "file").write_text("")
    with Process(tmp_path / "file" / "telemetry") as process:
        assert_serves_and_counts(process, nuclei_bytes, lost=12)


def test_a_second_service_on_one_folder_serves_and_says_why_it_keeps_no_journal(tmp_path, nuclei_bytes):
    with Process(tmp_path) as first, Process(tmp_path) as second:
        assert first.post(nuclei_bytes, max_steps=3, eps=0).status_code == 200
        assert_serves_and_counts(second, nuclei_bytes, lost=12)
        assert second.logged("another process writes this file")
        assert first.problems() == []
        first.send(signal.SIGTERM)
        assert first.ended() == 0

        def takes_over():
            assert second.post(nuclei_bytes, max_steps=0).status_code == 200
            return second.problems() == []

        second.wait_for(takes_over)
        second.send(signal.SIGTERM)
        assert second.ended() == 0
    assert verify(tmp_path, validator=TelemetryValidator(load_schema())).findings == []


def test_a_full_disk_is_said_once_and_counted(tmp_path, nuclei_bytes):
    (tmp_path / "telemetry.jsonl").symlink_to("/dev/full")
    with Process(tmp_path) as process:
        assert_serves_and_counts(process, nuclei_bytes, lost=12)


def test_a_disk_that_fills_up_leaves_whole_lines(tmp_path, nuclei_bytes):
    with Process(tmp_path) as process:
        process.limit_files(6000)
        assert_serves_and_counts(process, nuclei_bytes, lost=5)
        process.send(signal.SIGTERM)
        assert process.ended() == 0
    whole = process.file.read_bytes()
    kept = whole[: whole.rfind(b"\n") + 1].splitlines()
    assert len(kept) >= 3
    assert_numbered_without_a_gap([json.loads(line) for line in kept])


def test_a_directory_that_goes_away_and_comes_back_is_written_to_again(tmp_path, nuclei_bytes):
    folder = tmp_path / "telemetry"
    with Process(folder) as process:
        assert process.post(nuclei_bytes, max_steps=0).status_code == 200
        process.wait_for(process.file.exists)
        shutil.rmtree(folder)
        folder.write_text("a file in its place")
        assert process.post(nuclei_bytes, max_steps=3, eps=0).status_code == 200
        process.wait_for(lambda: process.lost() >= 4)
        folder.unlink()
        folder.mkdir()

        def is_written_again():
            assert process.post(nuclei_bytes, max_steps=0).status_code == 200
            return process.file.exists()

        process.wait_for(is_written_again)
        process.wait_for(lambda: process.problems() == [])
        process.send(signal.SIGTERM)
        assert process.ended() == 0
        assert len(process.logged("telemetry_journal_failed")) == 1
        assert len(process.logged("telemetry_journal_resumed")) == 1
    assert records(process.file)[0]["seq"] >= 5
