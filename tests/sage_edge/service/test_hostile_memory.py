"""A serving process with little memory to give away, and callers who want more: it holds, and serves."""

from __future__ import annotations

import io
import json
import socket
import struct
import zlib
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.sage_edge.service.test_process import Process

MIB = 1 << 20
BUDGET = 192 * MIB
SQUARE = 1500


class Hostess(Process):
    """The process, and how much it has ever had beyond what it had before."""

    def memory(self):
        return self.client.get("/v1/status").json()["memory"]

    def mark(self):
        self._before = self._read_status("VmRSS")
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def growth(self):
        return self._read_status("VmHWM") - self._before

    def _read_status(self, name):
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(text.partition(f"{name}:")[2].split()[0])

    def open(self, stack):
        """A connection of its own that takes in as little as it can."""
        host, port = self.client.base_url.host, self.client.base_url.port
        raw = stack.enter_context(socket.socket())
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(30)
        raw.connect((host, port))
        return raw


def head(path, length, *lines):
    return "\r\n".join(
        [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {length}", *lines, "", ""]
    ).encode()


def one_colour(width, height):
    """A large PNG of few bytes."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    rows = zlib.compress((b"\0" + bytes(width)) * height)
    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def code_of(reply):
    return reply.status_code, reply.json()["error"]["code"]


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    flags = ["--plugins", "vision,control", "--memory-bytes", BUDGET, "--write-timeout-s", 1]
    flags += ["--results-keep-s", 600, "--drain-s", 5, "--max-steps-cap", 4096]
    with Hostess(tmp_path_factory.mktemp("telemetry"), *flags) as running:
        running.post((Path(__file__).parents[3] / "demos/frames/nuclei.webp").read_bytes())
        yield running


@pytest.fixture
def honest(process, nuclei_bytes):
    """An ordinary caller, who is served while the others want more than there is; and all is given back."""
    process.mark()

    def ask():
        return process.post(nuclei_bytes, max_steps=1).status_code

    yield ask
    assert ask() == 200
    busy = {"bodies", "decoding", "requests", "replies", "events"}
    process.wait_for(lambda: not any(process.memory()[name]["used_bytes"] for name in busy))
    assert process.growth() < BUDGET


def test_bodies_that_never_end_are_held_up_to_the_limit_and_refused_beyond(process, honest):
    length, count = 15 * MIB, 40
    with ExitStack() as stack:
        callers = [process.open(stack) for _ in range(count)]
        for raw in callers:
            raw.sendall(head("/v1/refine/vision", length))
        process.wait_for(lambda: process.memory()["bodies"]["refused"] >= count - 2)
        assert 0 < process.memory()["bodies"]["used_bytes"] <= process.memory()["bodies"]["limit_bytes"]
        assert honest() == 200
    assert code_of(process.client.post("/v1/refine/vision", content=bytes(40 * MIB))) == (
        413,
        "frame_too_large",
    )


def test_a_body_in_chunks_is_refused_as_soon_as_it_has_no_room(process, honest):
    def chunks():
        for _ in range(64):
            yield bytes(MIB)

    sent = process.client.post("/v1/refine/vision", content=chunks())
    assert code_of(sent) == (413, "frame_too_large")


@pytest.mark.parametrize("piece", [b"[],", b"{},", b'"ab",', b'{"":0},'])
def test_json_that_would_become_far_more_than_it_is_is_refused_before_it_is_parsed(process, honest, piece):
    body = b"[" + piece * (6 * MIB // len(piece)) + b"0]"
    for kind in ("application/json", "application/octet-stream"):
        reply = process.client.post("/v1/refine/control", content=body, headers={"Content-Type": kind})
        assert code_of(reply) == (413, "frame_too_large")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_picture_that_would_take_too_much_is_refused_before_it_is_decoded(process, honest, kind):
    content = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(content, kind, lossless=True)
    assert len(content.getvalue()) < 256 << 10
    reply = process.client.post("/v1/refine/vision", content=content.getvalue())
    assert code_of(reply) == (413, "frame_too_large")
    assert "memory for decoding" in reply.json()["error"]["message"]


def test_a_scene_decodes_its_pictures_one_after_the_other(process, honest):
    picture = one_colour(2000, 2000)
    files = [("vision", ("f", picture, "image/png")) for _ in range(4)]
    reply = process.client.post("/v1/scenes", files=files, params={"deadline_ms": 50_000})
    assert [len(result["answer"]["shape"]) for result in reply.json()["results"]] == [2] * 4


def test_replies_that_nobody_reads_are_cut_off_and_given_back(process, honest):
    picture = one_colour(SQUARE, SQUARE)
    with ExitStack() as stack:
        for _ in range(24):
            raw = process.open(stack)
            lines = ["Accept: application/octet-stream", "Content-Type: image/png"]
            raw.sendall(head("/v1/refine/vision?max_steps=0", len(picture), *lines) + picture)
        assert honest() == 200
        process.wait_for(lambda: process.memory()["requests"]["used_bytes"] == 0)
        process.wait_for(lambda: process.memory()["replies"]["used_bytes"] == 0)


def test_a_slow_reader_gets_all_of_its_reply(process, honest):
    picture = one_colour(SQUARE, SQUARE)
    with ExitStack() as stack:
        raw = process.open(stack)
        lines = ["Accept: application/octet-stream", "Content-Type: image/png", "Connection: close"]
        raw.sendall(head("/v1/refine/vision?max_steps=0", len(picture), *lines) + picture)
        reply = b"".join(iter(lambda: raw.recv(8192), b""))
    assert len(reply.partition(b"\r\n\r\n")[2]) == SQUARE * SQUARE


def test_answers_that_are_kept_make_way_for_newer_ones(process, honest):
    picture, places = one_colour(SQUARE, SQUARE), []
    while len(places) < 24:
        headers = {"Prefer": "respond-async", "Content-Type": "image/png"}
        reply = process.client.post("/v1/refine/vision?max_steps=0", content=picture, headers=headers)
        if reply.status_code == 202:
            places.append(reply.headers["location"])
        else:
            assert code_of(reply) == (429, "memory_full")
            assert reply.headers["retry-after"]
            process.wait_for(lambda: process.lane()["waiting"] + process.lane()["live"] == 0)
    process.wait_for(lambda: process.lane()["waiting"] + process.lane()["live"] == 0)
    assert (
        SQUARE**2 <= process.memory()["answers"]["used_bytes"] <= process.memory()["answers"]["limit_bytes"]
    )
    accepts = {"Accept": "application/octet-stream"}
    assert len(process.client.get(places[-1], headers=accepts).content) == SQUARE * SQUARE
    assert code_of(process.client.get(places[0])) == (404, "unknown_request")
    kept = [place for place in places if process.client.delete(place).status_code == 204]
    assert process.memory()["answers"]["used_bytes"] == 0 < len(kept)


def test_a_crowd_that_asks_for_the_best_so_far_is_served_as_there_is_room(process, honest):
    picture = one_colour(SQUARE, SQUARE)
    headers = {"Prefer": "respond-async", "Content-Type": "image/png", "X-Request-Id": "long"}
    posted = process.client.post("/v1/refine/vision?max_steps=4096&eps=0", content=picture, headers=headers)
    process.wait_for(lambda: process.lane()["live"] == 1)
    codes = []
    with ExitStack() as stack:
        crowd = [process.open(stack) for _ in range(60)]
        for raw in crowd:
            lines = [
                f"GET {posted.headers['location']} HTTP/1.1",
                "Host: x",
                "Accept: application/octet-stream",
            ]
            raw.sendall("\r\n".join([*lines, "", ""]).encode())
        for raw in crowd:
            codes.append(int(raw.recv(16)[9:12]))
    assert process.client.delete(posted.headers["location"]).status_code == 204
    assert set(codes) == {200, 429}


def test_problems_that_streams_leave_behind_are_bounded(process, honest):
    rng = np.random.default_rng(0)
    codes = set()
    for number in range(60):
        content = io.BytesIO()
        np.savez_compressed(content, kind="qp", P=np.diag(1.0 + rng.random(160)), q=np.ones(160))
        reply = process.client.post(
            f"/v1/refine/control?stream_id=s{number}",
            content=content.getvalue(),
            headers={"Content-Type": "application/octet-stream"},
        )
        codes.add(reply.status_code)
    assert codes == {200}
    streams = process.memory()["streams"]
    assert streams["limit_bytes"] // 4 < streams["used_bytes"] <= streams["limit_bytes"]


def test_a_problem_whose_factors_do_not_fit_is_refused_before_they_are_made(process, honest):
    content = io.BytesIO()
    np.savez_compressed(content, kind="qp", P=np.eye(1024), q=np.ones(1024))
    headers = {"Content-Type": "application/octet-stream"}
    reply = process.client.post("/v1/refine/control", content=content.getvalue(), headers=headers)
    assert code_of(reply) == (413, "frame_too_large")


def test_a_plan_among_many_obstacles_takes_no_more_than_it_says(process, honest):
    rng = np.random.default_rng(1)
    small = np.column_stack([rng.uniform(-99, 99, (1999, 2)), np.full(1999, 0.01)])
    problem = {
        "kind": "plan",
        "start": [-150, 150],
        "goal": [150, 150],
        "obstacles": [[0, 0, 100], *small.tolist()],
        "robot_radius_m": 0.1,
    }
    reply = process.client.post("/v1/refine/control?max_steps=1", json={"problem": problem})
    assert reply.status_code == 200
    assert process.growth() < 96 * MIB


def test_readers_of_events_who_never_read_are_counted_refused_and_cut_off(process, honest):
    with ExitStack() as stack:
        for _ in range(60):
            process.open(stack).sendall(b"GET /v1/telemetry/stream?after=-1 HTTP/1.1\r\nHost: x\r\n\r\n")
        process.wait_for(lambda: process.memory()["events"]["refused"] > 0)
        with httpx.Client(base_url=process.client.base_url) as other:
            assert code_of(other.get("/v1/telemetry/stream")) == (429, "memory_full")
        assert honest() == 200


def test_the_metrics_say_what_is_held_and_what_was_refused(process):
    page = process.client.get("/metrics").text
    for name in process.memory():
        for metric in ("sage_held_bytes", "sage_held_limit_bytes", "sage_held_refused_total"):
            assert f'{metric}{{account="{name}"}}' in page
    assert sum(account["limit_bytes"] for account in process.memory().values()) <= BUDGET
    assert json.dumps(process.memory())
