"""What the service adds to a request: raw frames to a plugin that returns at once, beside bare FastAPI.

FastAPI runs under uvicorn on httptools, on h11, and behind the front of the service. Each server has a
process of its own; one keep-alive connection to each sends 640x480x3 frames, and tensors of 16 bytes, in
changing order, so that a slow moment of the machine meets all. Reported: p50 and p99 of each, the processor
time of the event loop for a request, and the ratio of the medians for a frame.
"""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import report

BODIES = {"480,640,3": bytes(range(256)) * 3600, "2,8": bytes(16)}
PATHS = {"sage_edge": "/v1/refine/instant", "httptools": "/frame", "h11": "/frame", "front": "/frame"}


class Client:
    """One keep-alive connection that posts the same tensors again and again."""

    def __init__(self, port: int, path: str, process: int) -> None:
        self._schedule = Path(f"/proc/{process}/schedstat")
        self._connection = _connect(port)
        self._requests = {}
        for shape, body in BODIES.items():
            head = (
                f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
                f"Sage-Tensor-Shape: {shape}\r\nSage-Tensor-Dtype: uint8\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            self._requests[shape] = head.encode() + body

    def post(self, shape: str) -> float:
        """Milliseconds from the first byte sent to the last received."""
        start_s = time.perf_counter()
        self._connection.sendall(self._requests[shape])
        reply = b""
        while b"\r\n\r\n" not in reply:
            reply += self._receive()
        head, _, body = reply.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        [length] = [
            int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        ]
        while len(body) < length:
            body += self._receive()
        return (time.perf_counter() - start_s) * 1e3

    def processor_ms(self) -> float:
        """What the main thread of the server has computed for, which is that of its event loop."""
        return int(self._schedule.read_text(encoding="ascii").split()[0]) / 1e6

    def _receive(self) -> bytes:
        data = self._connection.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data


def _connect(port: int) -> socket.socket:
    give_up_s = time.monotonic() + 30
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.05)
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection


def main() -> None:
    """Measure, print, write."""
    options = report.parser(__doc__)
    options.add_argument("--requests", type=int, default=1000, help="to each server")
    chosen = options.parse_args()
    times_ms: dict[tuple[str, str], list[float]] = {(name, shape): [] for name in PATHS for shape in BODIES}
    order = random.Random(0)  # noqa: S311
    spent_ms = dict.fromkeys(times_ms, 0.0)
    with ExitStack() as stack:
        clients = {}
        for name, path in PATHS.items():
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            command = [sys.executable, "-m", "benchmarks.http_servers", name, str(port)]
            server = stack.enter_context(subprocess.Popen(command))
            stack.callback(server.terminate)
            clients[name] = Client(port, path, server.pid)
        for client in clients.values():
            for _ in range(50):
                client.post("480,640,3")
        for _ in range(chosen.requests):
            for name, shape in order.sample(list(times_ms), len(times_ms)):
                start_ms = clients[name].processor_ms()
                times_ms[name, shape].append(clients[name].post(shape))
                spent_ms[name, shape] += clients[name].processor_ms() - start_ms
    results = [
        {
            "server": name,
            "shape": shape,
            "p50_ms": report.percentile(times, 0.5),
            "p99_ms": report.percentile(times, 0.99),
            "processor_ms": spent_ms[name, shape] / len(times),
        }
        for (name, shape), times in times_ms.items()
    ]
    medians = {row["server"]: row["p50_ms"] for row in results if row["shape"] == "480,640,3"}
    ratio = medians["sage_edge"] / medians["httptools"]
    report.table(
        ["server", "tensor", "p50 ms", "p99 ms", "processor ms"], [list(row.values()) for row in results]
    )
    print(f"sage_edge over bare FastAPI on httptools, medians for a frame: {ratio:.2f}x")
    report.write(chosen.json, "http", {"servers": results, "ratio_p50": ratio, "requests": chosen.requests})


if __name__ == "__main__":
    main()
