"""Death at random moments under load, in one telemetry folder: does the journal stay sound, and what is lost?

After each death the journal is verified, then the service starts again on the same folder. An answer whose
final record is not in the journal was answered in the last moments before a death: how long before is said.
Exits 1 when a journal is not sound.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.soak import FRAMES, start


class Load:
    """Posts frames over some connections until the service is gone; ids of answers with their time."""

    def __init__(self, port: int, life: int, connections: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/refine/vision?max_steps=3"
        self.answered_s: dict[str, float] = {}
        self._threads = [
            threading.Thread(target=self._run, args=(f"{life}-{number}",)) for number in range(connections)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _run(self, name: str) -> None:
        frame, count = FRAMES[0].read_bytes(), 0
        while True:
            request_id = f"{name}-{count}"
            headers = {"Content-Type": "image/webp", "X-Request-Id": request_id}
            try:
                with urllib.request.urlopen(
                    urllib.request.Request(self._url, frame, headers), timeout=30
                ) as reply:
                    reply.read()
            except OSError:
                return
            self.answered_s[request_id] = time.monotonic()
            count += 1


def final_records(telemetry: Path) -> set[str]:
    """Ids of the requests whose last record is in the journal."""
    found = set()
    for path in telemetry.glob("telemetry.jsonl*"):
        for line in path.read_bytes().splitlines():
            if line.endswith(b"}"):
                record = json.loads(line)
                if record["kind"] == "step" and record["halt_reason"]:
                    found.add(record["request_id"])
    return found


def audit(telemetry: Path) -> dict[str, Any]:
    """The verdict on a journal."""
    command = [sys.executable, "-m", "sage_edge", "audit", "verify", str(telemetry), "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)[0]
    return found


def measure(telemetry: Path, rounds: int, longest_s: float, connections: int) -> dict[str, Any]:
    """Live and die ``rounds`` times."""
    pick = random.Random(1)  # noqa: S311 - moments
    findings: list[str] = []
    answers, torn, before_ms = 0, 0, []
    for life in range(rounds):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        server = start(port, str(telemetry))
        load = Load(port, life, connections)
        time.sleep(pick.uniform(0, longest_s))
        server.kill()
        died_s = time.monotonic()
        server.wait()
        load.join()
        found = audit(telemetry)
        findings += [finding["problem"] for finding in found["findings"]]
        torn += found["torn_bytes"] > 0
        recorded = final_records(telemetry)
        answers += len(load.answered_s)
        before_ms += [(died_s - at_s) * 1e3 for name, at_s in load.answered_s.items() if name not in recorded]
    return {
        "deaths": rounds,
        "answers": answers,
        "findings": findings,
        "torn_lines": torn,
        "answers_without_record": len(before_ms),
        "oldest_of_them_ms_before_death": max(before_ms, default=0.0),
    }


def main() -> None:
    """Measure, print, write."""
    options = report.parser(__doc__)
    options.add_argument("--rounds", type=int, default=50)
    options.add_argument("--longest", type=float, default=1.5, help="seconds of load before a death, at most")
    options.add_argument("--connections", type=int, default=4)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as telemetry:
        results = measure(Path(telemetry), chosen.rounds, chosen.longest, chosen.connections)
    report.table(["figure", "value"], [[name, value] for name, value in results.items()])
    report.write(chosen.json, "hostile.kill", results)
    sys.exit(1 if results["findings"] else 0)


if __name__ == "__main__":
    main()
