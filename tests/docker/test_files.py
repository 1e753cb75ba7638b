"""What stands beside the image: its health check, and the rules that Prometheus alerts by."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sage_edge.telemetry import Metrics

DOCKER = Path(__file__).parents[2] / "docker"


def healthcheck(port):
    return subprocess.run(
        [sys.executable, DOCKER / "healthcheck.py"],
        env=os.environ | {"SAGE_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("status", "reply", "code"),
    [
        (200, '{"ready": true, "state": "ready", "problems": []}', 0),
        (200, '{"ready": true, "state": "ready", "problems": ["telemetry_journal_failed"]}', 0),
        (503, '{"ready": false, "state": "building_engine", "progress": {"fraction": 0.47}}', 0),
        (503, '{"ready": false, "state": "failed", "problems": []}', 1),
        (503, '{"ready": false, "state": "draining", "problems": []}', 1),
        (500, '{"ready": false, "state": "building_engine"}', 1),
        (503, "", 1),
        (503, "[]", 1),
        (404, "building_engine", 1),
    ],
)
def test_the_health_check_follows_readyz_and_lets_engines_be_built(status, reply, code):
    class Ready(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(reply.encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        done = healthcheck(server.server_port)
        thread.join()
    assert done.returncode == code
    assert reply in {(0, 200): reply, (0, 503): done.stdout}.get((code, status), done.stderr)


def test_the_health_check_says_why_nobody_answers():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    done = healthcheck(port)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not ready: " in done.stderr
    assert "refused" in done.stderr


def test_every_metric_that_a_rule_asks_for_exists():
    rules = (DOCKER / "prometheus" / "rules.yml").read_text(encoding="utf-8")
    asked = set(
        re.findall(r"\b(sage_\w+)\b", re.sub(r"^ +description:.*|name: \w+", "", rules, flags=re.MULTILINE))
    )
    exposed = set(re.findall(r"^# TYPE (\S+)", Metrics().exposition().decode(), re.MULTILINE))
    assert asked - {"sage_edge"} <= exposed
    assert len(asked) >= 6


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian: prometheus) is not installed")
@pytest.mark.parametrize(
    "command", ["check config prometheus.yml", "check rules rules.yml", "test rules rules_test.yml"]
)
def test_promtool_accepts_configuration_rules_and_their_tests(command):
    done = subprocess.run(
        ["promtool", *command.split()], cwd=DOCKER / "prometheus", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
