"""The examples, and what `sage-edge plugin new` writes: installed by pip, checked, served by a process."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NAMES = ("smooth", "pagerank", "edges")
#: The package that `sage-edge plugin new` writes.
NEW = "my_plugin"


def run(*command, path, cwd):
    """A command that succeeds, with packages of a folder beside those that are installed; its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SAGE_")}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        env=environment | {"PYTHONPATH": str(path)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Copies of the packages, since pip builds a package where it lies."""
    folder = tmp_path_factory.mktemp("sources")
    for name in NAMES:
        leftovers = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
        shutil.copytree(EXAMPLES / name, folder / name, ignore=leftovers)
    said = run("sage_edge", "plugin", "new", NEW, "--out", folder, path="", cwd=folder)
    assert f"--plugins {NEW}" in said
    return folder


@pytest.fixture(scope="module")
def installed(sources, tmp_path_factory):
    """The folder into which pip has installed them all."""
    folder = tmp_path_factory.mktemp("installed")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    packages = [sources / name for name in (*NAMES, NEW)]
    run("pip", "install", "--quiet", *offline, "--target", folder, *packages, path="", cwd=folder)
    return folder


@pytest.mark.parametrize("name", [*NAMES, NEW])
def test_an_installed_plugin_keeps_its_contract(name, installed, tmp_path):
    said = run("sage_edge", "plugin", "check", name, path=installed, cwd=tmp_path)
    assert f"{name}: nothing to mend" in said
    assert "FAIL" not in said


def test_the_test_of_a_new_plugin_passes(sources, tmp_path):
    said = run("pytest", "-q", "-p", "no:cacheprovider", sources / NEW, path=sources / NEW, cwd=tmp_path)
    assert "2 passed" in said


def test_a_new_plugin_has_nothing_left_of_the_example_that_it_was_copied_from(sources):
    for file in sorted((sources / NEW).iterdir()):
        if file.is_file():
            assert "smooth" not in (file.name + file.read_text(encoding="utf-8")).lower(), file.name


@pytest.fixture(scope="module")
def client(installed, tmp_path_factory):
    """A caller of one process that serves them all."""
    flags = ["--plugins", ",".join([*NAMES, NEW]), "--port", "0", "--threads", "1", "--telemetry-dir", ""]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SAGE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "sage_edge", "serve", *flags],
        env=inherited | {"PYTHONPATH": str(installed)},
        cwd=tmp_path_factory.mktemp("served"),
        stderr=subprocess.PIPE,
        text=True,
    )
    log = []
    for line in process.stderr:
        log.append(line)
        if "serving url=" in line:
            break
    assert process.poll() is None, "".join(log)
    url = re.search(r"url=(\S+)", log[-1])[1]
    with httpx.Client(base_url=url, timeout=60) as caller:
        yield caller
    process.terminate()
    assert process.wait(30) == 0
    process.stderr.close()


def as_png(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def post(client, name, picture):
    """The PNG that a picture is answered with, opened."""
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    reply = client.post(f"/v1/refine/{name}", content=as_png(picture), headers=headers)
    assert reply.status_code == 200, reply.text
    assert reply.headers["Content-Type"] == "image/png"
    return reply.headers, np.asarray(Image.open(io.BytesIO(reply.content)))


def fine_detail(grey):
    """Power of a picture in frequencies above half of the highest one."""
    power = np.abs(np.fft.fft2(grey.astype(float))) ** 2
    rows, columns = (np.abs(np.fft.fftfreq(n)) for n in grey.shape)
    return power[(rows[:, None] > 0.25) | (columns[None] > 0.25)].sum()


@pytest.mark.parametrize("name", ["smooth", NEW])
def test_a_noisy_frame_comes_back_smoother_and_nearer_to_the_clean_one(client, name):
    rows, columns = np.mgrid[:60, :80]
    clean = 128 + 60 * np.sin(rows / 15) * np.cos(columns / 20)
    noisy = np.clip(clean + np.random.default_rng(5).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    headers, answer = post(client, name, np.repeat(noisy[:, :, None], 3, axis=2))
    assert (answer.dtype, answer.shape) == (np.uint8, noisy.shape)
    assert headers["Sage-Halt-Reason"] == "slope<eps"
    assert fine_detail(answer) < 0.1 * fine_detail(noisy)
    assert np.abs(answer - clean).mean() < 0.5 * np.abs(noisy - clean).mean()


def test_links_come_back_as_the_leading_eigenvector_of_their_matrix(client):
    rng = np.random.default_rng(11)
    names = [f"page{number:02d}" for number in range(40)]
    links = {name: list(rng.choice(names, size=rng.integers(0, 6), replace=False)) for name in names}
    assert [] in links.values()  # a page that leads nowhere leads everywhere
    reply = client.post("/v1/refine/pagerank", json={"problem": {"links": links, "damping": 0.9}})
    assert reply.status_code == 200, reply.text
    answer = reply.json()["answer"]
    ranks = np.frombuffer(base64.b64decode(answer["base64"]), answer["dtype"])
    expected = ranks_by_eigenvector(links, names, damping=0.9)
    np.testing.assert_allclose(ranks, expected, rtol=1e-4)
    best = sorted(zip(expected, names, strict=True), reverse=True)[:10]
    assert list(answer["top"]) == [name for _, name in best]


def ranks_by_eigenvector(links, names, damping):
    """PageRank from the dense matrix of the surfer, one column for each page that is left."""
    count = len(names)
    moves = np.full((count, count), 1 / count)
    for column, name in enumerate(names):
        if links[name]:
            moves[:, column] = [links[name].count(other) / len(links[name]) for other in names]
    values, vectors = np.linalg.eig(damping * moves + (1 - damping) / count)
    leading = vectors[:, np.argmax(values.real)].real
    return leading / leading.sum()


def test_a_frame_comes_back_as_the_mask_of_its_edges(client):
    frame = np.full((128, 128, 3), 40, np.uint8)
    frame[30:90, 50:110] = 220
    headers, mask = post(client, "edges", frame)
    assert headers["Sage-Steps"] == "0"
    assert headers["Sage-Partial"] == "false"
    p = np.pad(frame[:, :, 0] / 255, 1)
    down = p[2:, :-2] + 2 * p[2:, 1:-1] + p[2:, 2:] - p[:-2, :-2] - 2 * p[:-2, 1:-1] - p[:-2, 2:]
    right = p[:-2, 2:] + 2 * p[1:-1, 2:] + p[2:, 2:] - p[:-2, :-2] - 2 * p[1:-1, :-2] - p[2:, :-2]
    np.testing.assert_array_equal(mask, np.hypot(down, right) > 0.6)


def test_a_plugin_that_cannot_use_its_input_says_what_it_expected(client):
    reply = client.post("/v1/refine/pagerank", json={"problem": {"pages": ["a"]}})
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_parameter")
    assert '"links"' in reply.json()["error"]["message"]


def test_all_of_them_are_listed(client):
    listed = client.get("/v1/plugins").json()
    assert {name: entry["takes"] for name, entry in listed.items()} == {
        "smooth": "frame",
        "pagerank": "document",
        "edges": "frame",
        NEW: "frame",
    }


def test_the_wheel_and_the_image_carry_what_a_new_plugin_is_copied_from():
    listed = subprocess.run(
        ["git", "ls-files", "examples/smooth"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    installs = re.sub(r"#.*", "", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    carried = re.findall(r"install\((?:FILES|DIRECTORY) ([\w/. \n]+?)\s+DESTINATION", installs)
    paths = {path for group in carried for path in group.split()}
    assert set(listed.stdout.split()) <= paths
    copied = re.findall(r"^COPY (\S+) \./", (ROOT / "docker" / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for path in paths:
        assert any(path == folder or path.startswith(f"{folder}/") for folder in copied), path
        assert any(path == line[1:] or path.startswith(f"{line[1:]}/") for line in let_in), path
