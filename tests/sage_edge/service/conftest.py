"""A real server on a real socket, with the vision plugin and one whose steps the test times."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time

import httpx
import pytest
import uvicorn

from sage_edge import HRM, Settings
from sage_edge.service import create_app
from sage_edge.service.front import configure
from tests.quadratic import QuadraticPlugin


class Gate:
    """Holds every step of a plugin while it is closed."""

    def __init__(self):
        self._changed = threading.Condition()
        self._is_open = True
        self._permits = 0
        self.steps = 0

    def pass_step(self):
        self.steps += 1
        with self._changed:
            self._changed.wait_for(lambda: self._is_open or self._permits, timeout=30)
            self._permits -= not self._is_open

    def close(self):
        with self._changed:
            self._is_open, self._permits = False, 0

    def open(self):
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def let_one_pass(self):
        with self._changed:
            self._permits += 1
            self._changed.notify_all()


class Service:
    """A served orchestrator."""

    def __init__(self, plugins, settings, clock=None, loops=None):
        self.hrm = HRM(settings, plugins, clock, loops)
        self.hrm.start()
        self.app = create_app(self.hrm, clock)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = uvicorn.Server(configure(self.app, settings))
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self):
        self._thread.start()
        self.client = httpx.Client(base_url=self.url, timeout=30)
        assert self.client.get("/healthz").json() == {"live": True}
        return self

    def __exit__(self, *_):
        self.client.close()
        self.hrm.telemetry.hub.close()
        self.server.should_exit = True
        self._thread.join(30)
        self._socket.close()
        self.hrm.close()

    def wait_for(self, condition, within_s=10.0):
        """Wait until the service, which runs on threads of its own, has come to a state."""
        give_up_s = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < give_up_s, "the service did not come to that state in time"
            threading.Event().wait(0.005)


@pytest.fixture(scope="package")
def service(vision):
    settings = Settings(slots=4, queue_size=16, threads=1, telemetry_dir="", max_body_bytes=8 << 20)
    with Service({"vision": vision, "quadratic": QuadraticPlugin()}, settings) as running:
        yield running


@pytest.fixture
def gated(tmp_path):
    """A service of one slot and one waiting place, and the gate of its steps."""
    gate = Gate()
    plugin = QuadraticPlugin(before_step=gate.pass_step)
    settings = Settings(slots=1, queue_size=1, threads=1, telemetry_dir=str(tmp_path / "telemetry"))
    with Service({"quadratic": plugin}, settings) as running:
        gate.steps = 0  # the warm-up's do not count
        yield running, gate
        gate.open()


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-keyout",
        key,
        "-out",
        cert,
    ]
    subprocess.run([*make, *names], check=True, capture_output=True)
    return cert, key
