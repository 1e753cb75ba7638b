"""The image, built on a base that is put together here, and containers of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
BASE, IMAGE = "localhost/base", "localhost/sage-edge"
#: As Debian's slim images do.
SLIM = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("man", "doc", "locale")]


class Podman:
    """podman with a store of its own."""

    def __init__(self, folder):
        self.store = folder / "store"
        self._command = ["podman", "--root", self.store, "--runroot", folder / "run"]
        self._environment = os.environ | {"CONTAINERS_CONF": str(ROOT / "docker" / "containers.conf")}

    def __call__(self, *arguments, within_s=120):
        return self._run(*arguments, within_s=within_s).stdout.strip()

    def logs(self, name):
        done = self._run("logs", name)
        return done.stdout + done.stderr

    def _run(self, *arguments, within_s=120):
        done = subprocess.run(
            [*self._command, *map(str, arguments)],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        assert done.returncode == 0, f"podman {arguments[0]}: {done.stdout}{done.stderr}"
        return done


@pytest.fixture(scope="session")
def podman():
    for tool in ("podman", "mmdebstrap", "prometheus"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: run `make image-test`, which installs it")
    folder = ROOT / "build" / "podman"
    folder.mkdir(parents=True, exist_ok=True)
    made = Podman(folder)
    yield made
    subprocess.run(["umount", "--lazy", made.store / "overlay"], check=False, capture_output=True)


@pytest.fixture(scope="session")
def image(podman, tmp_path_factory):
    """The image's name; base and layers are kept for the next call."""
    if BASE not in podman("images", "--format", "{{.Repository}}").splitlines():
        tar = tmp_path_factory.mktemp("base") / "base.tar"
        release = ["bookworm", tar, "/etc/apt/sources.list.d/debian.sources"]
        include = "--include=ca-certificates,python3"
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", *SLIM, include, *release], check=True, timeout=300
        )
        podman("import", "--quiet", tar, BASE)
        tar.unlink()
    # The machine's own certificates and package settings, for the build alone.
    borrowed = [path for path in ("/etc/ssl/certs", "/etc/pip.conf") if Path(path).exists()]
    mounts = [option for path in borrowed for option in ("--volume", f"{path}:{path}:ro")]
    arguments = ["--build-arg", f"BASE_IMAGE={BASE}", "--file", "docker/Dockerfile", "--tag", IMAGE, "."]
    podman("build", "--format", "docker", "--network", "host", *mounts, *arguments, within_s=600)
    return IMAGE


class Container:
    """A running container of the image, as JETSON_SETUP.md starts it."""

    def __init__(self, podman, image, volume, port, access):
        self._podman = podman
        self.start_s = time.monotonic()
        self.name = podman(
            *("run", "--detach", "--pull", "never", "--init", "--publish", f"127.0.0.1:{port}:8080"),
            *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "512m"),
            *(
                "--volume",
                f"{volume}:/var/lib/sage-edge/telemetry:{access}",
                image,
                "serve",
                "--threads",
                "1",
            ),
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        self.wait_until_ready()

    def wait_until_ready(self, within_s=60.0):
        give_up_s = time.monotonic() + within_s
        while time.monotonic() < give_up_s:
            with contextlib.suppress(httpx.TransportError):
                if self.client.get("/readyz").status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(self.log())

    def run(self, *command):
        """A command inside; its output."""
        return self._podman("exec", self.name, *command)

    def post(self, frame, **budget):
        return self.client.post("/v1/refine/vision", content=frame, params=budget)

    def log(self):
        return self._podman.logs(self.name)

    def inspect(self, what):
        return self._podman("inspect", self.name, "--format", what)


@pytest.fixture
def volume(podman):
    """A volume for telemetry that outlives its containers."""
    name = podman("volume", "create")
    yield name
    podman("volume", "rm", "--force", name)


@pytest.fixture
def start(podman, image, volume):
    """Starts a container, with ``access`` rw or ro to its volume; all of them are gone at the end."""
    started = []

    def run(access="rw"):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        started.append(Container(podman, image, volume, port, access))
        return started[-1]

    yield run
    for container in started:
        container.client.close()
        podman("rm", "--force", "--time", "0", container.name)
