"""Two minutes at full load: is memory flat, is every step accounted for?

The real service in a process of its own, real frames at full speed over several connections. At the end the
states that the replies report (steps + 1 each) must equal the records published plus those counted as lost,
and resident memory must not have grown over the second half.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO

from prometheus_client.parser import text_string_to_metric_families

from benchmarks import report

FRAMES = sorted((Path(__file__).parents[1] / "demos" / "frames").glob("*.webp"))


class Load:
    """Posts frames until told to stop, and counts what came back."""

    def __init__(self, url: str, connections: int) -> None:
        self._url = url
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.states, self.answers, self.times_ms = 0, 0, []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(connections)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        frame = FRAMES[number % len(FRAMES)].read_bytes()
        while not self._stop.is_set():
            start_s = time.perf_counter()
            request = urllib.request.Request(
                f"{self._url}/v1/refine/vision", frame, {"Content-Type": "image/webp"}
            )
            with urllib.request.urlopen(request, timeout=60) as reply:
                steps = json.load(reply)["steps"]
            with self._lock:
                self.states += steps + 1
                self.answers += 1
                self.times_ms.append((time.perf_counter() - start_s) * 1e3)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def start(
    port: int,
    telemetry: str,
    plugins: Sequence[str] = ("vision",),
    environment: Mapping[str, str] = MappingProxyType({}),
    log: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """The service, ready; its warnings go to ``log``, or where ours go."""
    command = [sys.executable, "-m", "sage_edge", "serve", "--port", str(port), "--telemetry-dir", telemetry]
    server = subprocess.Popen(
        [*command, "--log-level", "warning", "--plugins", ",".join(plugins)],
        env={**os.environ, **environment},
        stderr=log,
    )
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return server
    raise SystemExit("the service did not start")


def resident_mib(pid: int) -> float:
    """VmRSS of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise LookupError("VmRSS")


def counters(url: str) -> dict[str, float]:
    """Records published and lost."""
    with urllib.request.urlopen(f"{url}/metrics") as reply:
        families = text_string_to_metric_families(reply.read().decode())
        samples = [s for family in families for s in family.samples]
    return {
        "published": sum(s.value for s in samples if s.name == "sage_telemetry_records_total"),
        "steps": sum(
            s.value
            for s in samples
            if s.name == "sage_telemetry_records_total" and s.labels["kind"] == "step"
        ),
        "lost": sum(s.value for s in samples if s.name == "sage_telemetry_lost_total"),
    }


def main() -> None:
    """Measure, print, write; exits 1 when a record is missing."""
    options = report.parser(__doc__)
    options.add_argument("--seconds", type=float, default=120)
    options.add_argument("--connections", type=int, default=12)
    chosen = options.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as telemetry:
        server = start(port, telemetry)
        try:
            load = Load(url, chosen.connections)
            memory_mib = []
            for _ in range(24):
                time.sleep(chosen.seconds / 24)
                memory_mib.append(resident_mib(server.pid))
            load.stop()
            time.sleep(1)  # the drain's last batch
            counted = counters(url)
        finally:
            server.terminate()
            server.wait()
        lines = sum(len(path.read_bytes().splitlines()) for path in Path(telemetry).glob("telemetry.jsonl*"))
    missing = load.states - counted["steps"] - counted["lost"]
    results = {
        "seconds": chosen.seconds,
        "answers": load.answers,
        "answers_per_s": load.answers / chosen.seconds,
        "p50_ms": report.percentile(load.times_ms, 0.5),
        "p99_ms": report.percentile(load.times_ms, 0.99),
        "states": load.states,
        **counted,
        "journal_lines": lines,
        "missing": missing,
        "resident_mib": [round(value, 1) for value in memory_mib],
        "growth_second_half_mib": memory_mib[-1] - memory_mib[len(memory_mib) // 2],
    }
    report.table(["figure", "value"], [[k, v] for k, v in results.items() if k != "resident_mib"])
    print("resident MiB:", *results["resident_mib"])
    report.write(chosen.json, "soak", results)
    sys.exit(
        0 if missing == 0 and lines >= counted["published"] else 1
    )  # the last checkpoint comes at the end


if __name__ == "__main__":
    main()
