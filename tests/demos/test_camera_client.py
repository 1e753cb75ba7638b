"""The camera client: files as they are, and the newest frame of a stream."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demos.camera_client import END, START, Newest, jpegs
from sage_edge import Settings
from sage_edge.keys import add_key
from tests.sage_edge.service.conftest import Service
from tests.wire import as_image

ROOT = Path(__file__).parents[2]
FRAME = ROOT / "demos" / "frames" / "nuclei.webp"


@pytest.fixture(scope="module")
def guarded(vision, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    (folder / "key").write_text(add_key(folder / "api.keys", "camera") + "\n")
    settings = Settings(slots=2, threads=1, telemetry_dir="", api_keys_file=str(folder / "api.keys"))
    with Service({"vision": vision}, settings) as running:
        yield running, folder / "key"


def run(url, *arguments, stdin=b""):
    command = [
        sys.executable,
        "demos/camera_client.py",
        *map(str, arguments),
        "--url",
        url,
        "--deadline-ms",
        "5000",
    ]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, timeout=120, check=False)


def test_files_are_posted_one_after_the_other(guarded):
    service, key = guarded
    done = run(service.url, FRAME, FRAME, "--key-file", key)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 2
    assert all("steps (" in line and "nucleus" in line for line in lines)


def test_a_stream_is_posted_until_it_ends_and_every_frame_is_accounted_for(guarded, nuclei_frame):
    service, key = guarded
    frames = [as_image(np.roll(nuclei_frame, number, axis=0), "JPEG") for number in range(5)]
    done = run(service.url, "-", "--key-file", key, stdin=b"".join(frames))
    assert done.returncode == 0, done.stderr
    posted = len(done.stdout.splitlines())
    assert done.stderr.decode() == f"5 frames, {5 - posted} of them dropped for newer ones\n"
    assert done.stdout.decode().splitlines()[-1].startswith("frame 5: ")


def test_a_camera_that_stands_still_is_a_stream(guarded, nuclei_frame):
    """The first run leaves its answer to the second, which has the same stream's name; a file has none."""
    service, key = guarded
    frame = as_image(nuclei_frame, "JPEG")
    first, second = (
        run(service.url, "-", "--key-file", key, "--stream-id", "yard", stdin=frame).stdout.decode()
        for _ in range(2)
    )
    assert first.startswith("frame 1: ")
    assert "frame 1: 1 steps" not in first
    assert "frame 1: 1 steps" in second
    assert ": 1 steps" not in run(service.url, FRAME, "--key-file", key).stdout.decode()


def test_a_refusal_is_told_and_ends_with_1(guarded):
    service, _ = guarded
    done = run(service.url, FRAME)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"401" in done.stderr
    assert b"unauthorized" in done.stderr


@given(
    st.lists(st.binary(max_size=40).filter(lambda body: b"\xff" not in body), max_size=6), st.integers(1, 17)
)
def test_a_stream_is_cut_into_its_images_however_it_arrives(bodies, block):
    images = [START + body + END for body in bodies]

    class Blocks(io.BytesIO):
        def read1(self, _=-1):
            return self.read(block)

    assert list(jpegs(Blocks(b"\n".join(images)))) == images


def test_the_newest_frame_takes_the_place_of_those_before():
    newest = Newest()
    newest.fill(iter([b"1", b"2", b"3"]))
    assert (newest.take(), newest.take()) == (b"3", None)
    assert (newest.count, newest.dropped) == (3, 2)


def test_who_waits_gets_each_frame_as_it_comes():
    newest = Newest()
    asked = threading.Semaphore(0)

    def slowly():
        for frame in (b"1", b"2"):
            asked.acquire()
            yield frame
        asked.acquire()

    thread = threading.Thread(target=newest.fill, args=(slowly(),))
    thread.start()
    taken = []
    for _ in range(3):
        asked.release()
        taken.append(newest.take())
    thread.join()
    assert taken == [b"1", b"2", None]
    assert newest.dropped == 0
