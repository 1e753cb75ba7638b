"""Four plugins of the protocol's own methods, served at once by an installed ``sage-edge``, and counted.

The service is a process of its own in an empty folder, with the plugins' file beside it, so that it is the
installed package that serves. Each plugin tells in its telemetry how often each of its methods was called;
what the replies say (steps + 1 states for each request) must be the same number.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import report

HERE = Path(__file__).parent
PROGRAM = str(Path(sys.executable).with_name("sage-edge"))
FRAME = (HERE.parent / "demos" / "frames" / "nuclei.webp").read_bytes()
#: By plugin: the content type and the body of a request, what follows its address, and the methods that are
#: called once for each state, and once for each request.
PLUGINS: dict[str, tuple[str, bytes, str, list[str], list[str]]] = {
    "Frame": ("image/webp", FRAME, "", ["energy", "project", "emit_telemetry"], ["prepare"]),
    "Document": (
        "application/json",
        b'{"problem": {"numbers": [3.0, -1.0, 4.0]}}',
        "",
        ["energy", "halt", "emit_telemetry"],
        ["prepare"],
    ),
    "Text": (
        "text/plain",
        b"The quick brown fox jumps over the lazy dog.",
        "",
        ["energy", "feasible", "gap", "emit_telemetry"],
        ["prepare"],
    ),
    "Stream": (
        "image/webp",
        FRAME,
        "?stream_id=camera",
        ["energy", "emit_telemetry"],
        ["prepare", "decode", "trust"],
    ),
}


def start(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The service over the four, ready, and its address."""
    shutil.copy(HERE / "seed_plugins.py", folder)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    names = [name.lower() for name in PLUGINS]
    classes = [part for name in PLUGINS for part in ("--set", f"{name.lower()}.class=seed_plugins:{name}")]
    command = [PROGRAM, "serve", "--port", str(port), "--threads", "1"]
    command += ["--plugins", ",".join(names), *classes, "--telemetry-dir", str(folder / "telemetry")]
    process = subprocess.Popen([*command, "--log-level", "warning"], cwd=folder)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=5).close()
            return process, url
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    process.kill()
    raise SystemExit("the service did not start")


def post(url: str, plugin: str) -> int:
    """One request; returns the states that it had."""
    kind, body, query, _, _ = PLUGINS[plugin]
    request = urllib.request.Request(f"{url}/v1/refine/{plugin.lower()}{query}", body, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return int(json.load(reply)["steps"]) + 1


def refine_all(url: str, requests: int) -> tuple[dict[str, int], float]:
    """One request of each alone, all at once, and one alone again: states by plugin, requests per second."""
    states = {plugin: post(url, plugin) for plugin in PLUGINS}
    began_s = time.perf_counter()
    with ThreadPoolExecutor(8) as callers:
        pending = [(plugin, callers.submit(post, url, plugin)) for _ in range(requests) for plugin in PLUGINS]
        for plugin, future in pending:
            states[plugin] += future.result()
    rate = len(pending) / (time.perf_counter() - began_s)
    for plugin in PLUGINS:
        states[plugin] += post(url, plugin)
    return states, rate


def counted(journal: Path) -> dict[str, dict[str, int]]:
    """How often each method was called from the first record to the last, by plugin: the records say so."""
    ends: dict[str, list[dict[str, int]]] = {}
    for file in sorted(journal.glob("telemetry.jsonl*"), reverse=True):
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["kind"] == "step":
                calls = record["extra"]["calls"]
                ends.setdefault(record["plugin"], [calls, calls])[1] = calls
    return {
        name: {key: last[key] - first.get(key, 0) for key in last} for name, (first, last) in ends.items()
    }


def compare(states: dict[str, int], calls: dict[str, dict[str, int]], requests: int) -> list[dict[str, Any]]:
    """A row for each plugin: the first record was written in the first state of the first request."""
    rows = []
    for plugin, (_, _, _, by_state, by_request) in PLUGINS.items():
        told = calls[plugin.lower()]
        expected = dict.fromkeys(by_state, states[plugin] - 1) | dict.fromkeys(by_request, requests + 1)
        off = {name: (told[name], count) for name, count in expected.items() if told[name] != count}
        rows.append({"plugin": plugin, "states": states[plugin], "calls": told, "off": off})
    return rows


def main() -> None:
    """Serve, measure, compare; fails where a count is off."""
    options = report.parser(__doc__ or "")
    options.add_argument("--requests", type=int, default=1000, help="for each plugin")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process, url = start(folder)
        try:
            states, rate = refine_all(url, chosen.requests)
        finally:
            process.terminate()
            process.wait(60)
        verified = subprocess.run(
            [PROGRAM, "audit", "verify", str(folder / "telemetry")],
            cwd=folder,
            capture_output=True,
            check=False,
        )
        rows = compare(states, counted(folder / "telemetry"), chosen.requests)
    for row in rows:
        print(f"{row['plugin']}: {row['states']} states, calls {row['calls']}, off {row['off'] or 'none'}")
    is_sound = verified.returncode == 0
    print(f"{rate:.0f} requests/s, journal {'sound' if is_sound else 'NOT sound'}")
    report.write(
        chosen.json, "plugins", {"plugins": rows, "requests_per_s": rate, "journal_is_sound": is_sound}
    )
    if not is_sound or any(row["off"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
