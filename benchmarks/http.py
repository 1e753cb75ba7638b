"""What the service adds to a request: raw frames to a plugin that returns at once, beside bare FastAPI.

Both servers run in processes of their own under the same uvicorn; one keep-alive connection to each sends
640x480x3 frames in turn, so that a slow moment of the machine meets both. Reported: p50 and p99 of each, and
the ratio of the medians.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import ExitStack

from benchmarks import report

FRAME = bytes(range(256)) * 3600  # 921,600 bytes: 640 x 480 x 3
PATHS = {"sage_edge": "/v1/refine/instant", "fastapi": "/frame"}


class Client:
    """One keep-alive connection that posts the same frame again and again."""

    def __init__(self, port: int, path: str) -> None:
        self._connection = _connect(port)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
            f"Sage-Tensor-Shape: 480,640,3\r\nSage-Tensor-Dtype: uint8\r\n"
            f"Content-Length: {len(FRAME)}\r\n\r\n"
        )
        self._request = head.encode() + FRAME

    def post(self) -> float:
        """Milliseconds from the first byte sent to the last received."""
        start_s = time.perf_counter()
        self._connection.sendall(self._request)
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
    times_ms: dict[str, list[float]] = {name: [] for name in PATHS}
    with ExitStack() as stack:
        clients = {}
        for name, path in PATHS.items():
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            command = [sys.executable, "-m", "benchmarks.http_servers", name, str(port)]
            server = stack.enter_context(subprocess.Popen(command))
            stack.callback(server.terminate)
            clients[name] = Client(port, path)
        for client in clients.values():
            for _ in range(50):
                client.post()
        for _ in range(chosen.requests):
            for name, client in clients.items():
                times_ms[name].append(client.post())
    results = {
        name: {"p50_ms": report.percentile(times, 0.5), "p99_ms": report.percentile(times, 0.99)}
        for name, times in times_ms.items()
    }
    ratio = results["sage_edge"]["p50_ms"] / results["fastapi"]["p50_ms"]
    report.table(
        ["server", "p50 ms", "p99 ms"],
        [[name, row["p50_ms"], row["p99_ms"]] for name, row in results.items()],
    )
    print(f"sage_edge over bare FastAPI, medians: {ratio:.2f}x")
    report.write(chosen.json, "http", {"servers": results, "ratio_p50": ratio, "requests": chosen.requests})


if __name__ == "__main__":
    main()
