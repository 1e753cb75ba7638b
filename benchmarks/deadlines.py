"""Deadlines in real time over HTTP: are they kept at 70 % load, and how soon again after a hiccup?

The real service in a process of its own serves two plugins to 64 callers with mixed deadlines, multiples of
what an answer takes alone. Their rate is 70 % of what the service was found to answer. Then come the hiccups:
the process is stopped, the machine is busy, a frame of 33 megapixels is sent, the disk is slow. The callers
share the machine with the service, and one thread: so each reply is looked at twice, by the caller's clock
and by what the service says that it took. How late the callers' own loop runs is measured beside, as is a
request that needs no turn (`/healthz`).
"""

from __future__ import annotations

import asyncio
import io
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from benchmarks import report
from benchmarks.soak import FRAMES, start

LOAD = 0.7
#: Deadlines, in times of the median answer alone.
MULTIPLES = (3, 6, 12, 25)
MPC = {
    "kind": "mpc",
    "A": [[1, 0.1], [0, 1]],
    "B": [[0.005], [0.1]],
    "Q": [1, 0.1],
    "R": [0.1],
    "N": 20,
    "x0": [1, 0],
    "u_min": [-1],
    "u_max": [1],
}


class Reply(NamedTuple):
    """One answer or refusal, in seconds of the caller's clock."""

    plugin: str
    deadline_ms: float | None
    sent_s: float
    took_s: float
    status: int
    #: From arrival to answer as the service says; None where there is no answer.
    service_ms: float | None

    @property
    def overrun_ms(self) -> float:
        return max(self.took_s * 1e3 - (self.deadline_ms or float("inf")), 0.0)

    @property
    def is_in_time(self) -> bool:
        return self.status == 200 and self.overrun_ms == 0

    @property
    def is_in_time_at_service(self) -> bool:
        """Whether the answer was made in time; what it took to be read is the caller's."""
        return self.service_ms is not None and self.service_ms <= (self.deadline_ms or float("inf"))


class Caller:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, plugin: str, body: bytes, content: str, deadline_ms: float | None) -> Reply:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader is not None
        query = "" if deadline_ms is None else f"?deadline_ms={deadline_ms:.3f}"
        head = (
            f"POST /v1/refine/{plugin}{query} HTTP/1.1\r\nHost: sage\r\nContent-Type: {content}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        sent_s = time.monotonic()
        self._writer.write(head.encode() + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        answer = await self._reader.readexactly(int(fields["content-length"]))
        took_s, status = time.monotonic() - sent_s, int(lines[0].split()[1])
        service_ms = json.loads(answer)["time_ms"]["total"] if status == 200 else None
        return Reply(plugin, deadline_ms, sent_s, took_s, status, service_ms)


@dataclass(frozen=True, slots=True)
class Bench:
    """The service, what is sent to it, and how it is asked."""

    port: int
    server: subprocess.Popen[bytes]
    bodies: dict[str, tuple[bytes, str]]
    callers: int
    #: While it exists, the service's disk is slow.
    slow_disk: Path

    async def alone(self, plugin: str, count: int) -> float:
        """Median milliseconds of an answer with nobody beside."""
        caller = Caller(self.port)
        took = [await caller.post(plugin, *self.bodies[plugin], None) for _ in range(count)]
        return report.median([reply.took_s * 1e3 for reply in took[count // 4 :]])

    async def rate(self, seconds: float) -> float:
        """Answers in a second with as many callers as there are slots, each asking again at once."""
        end_s, answered = time.monotonic() + seconds, 0

        async def ask(number: int) -> None:
            nonlocal answered
            caller, plugins = Caller(self.port), list(self.bodies)
            while time.monotonic() < end_s:
                plugin = plugins[(number + answered) % len(plugins)]
                await caller.post(plugin, *self.bodies[plugin], None)
                answered += 1

        await asyncio.gather(*(ask(number) for number in range(16)))
        return answered / seconds

    async def load(self, rate: float, seconds: float, alone_ms: dict[str, float]) -> list[Reply]:
        """Ask at a rate from all callers, at random times; each waits for its reply before it asks again."""
        end_s, replies, pick = time.monotonic() + seconds, [], random.Random(1)  # noqa: S311 - arrivals

        async def ask() -> None:
            caller = Caller(self.port)
            next_s = time.monotonic() + pick.expovariate(rate / self.callers)
            while next_s < end_s:
                await asyncio.sleep(max(next_s - time.monotonic(), 0))
                plugin = pick.choice(list(self.bodies))
                deadline_ms = pick.choice(MULTIPLES) * alone_ms[plugin]
                replies.append(await caller.post(plugin, *self.bodies[plugin], deadline_ms))
                next_s = max(next_s + pick.expovariate(rate / self.callers), time.monotonic() - 1.0)

        await asyncio.gather(*(ask() for _ in range(self.callers)))
        return replies

    async def lag(self, wanted: asyncio.Event) -> tuple[list[float], list[float]]:
        """Milliseconds that the callers' loop wakes up too late, and that ``/healthz`` takes, until told."""
        late_ms, health_ms = [], []
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while not wanted.is_set():
            before_s = time.monotonic()
            await asyncio.sleep(0.01)
            woken_s = time.monotonic()
            late_ms.append((woken_s - before_s) * 1e3 - 10.0)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: sage\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
            health_ms.append((time.monotonic() - woken_s) * 1e3)
        writer.close()
        return late_ms, health_ms

    async def slow_down_disk(self, seconds: float) -> None:
        """Every write to a file of the service takes 200 ms."""
        self.slow_disk.touch()
        await asyncio.sleep(seconds)
        self.slow_disk.unlink()

    async def stop(self, seconds: float) -> None:
        """Stop the process, as a suspend or a debugger does."""
        self.server.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self.server.send_signal(signal.SIGCONT)

    async def hog(self, seconds: float) -> None:
        """Keep every core busy beside the service."""
        busy = [multiprocessing.Process(target=_spin, args=(seconds,)) for _ in range(os.cpu_count() or 1)]
        for process in busy:
            process.start()
        while any(process.is_alive() for process in busy):
            await asyncio.sleep(0.01)

    async def large_frame(self) -> None:
        """One frame of 33 megapixels, without a deadline."""
        png = io.BytesIO()
        Image.new("RGB", (5792, 5792), "grey").save(png, "PNG", compress_level=1)
        await Caller(self.port).post("vision", png.getvalue(), "image/png", None)


def _spin(seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        pass


async def status(port: int) -> dict[str, Any]:
    """What the service says of its plugins."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/status HTTP/1.1\r\nHost: sage\r\nConnection: close\r\n\r\n")
    _, _, body = (await reader.read()).partition(b"\r\n\r\n")
    found: dict[str, Any] = json.loads(body)["plugins"]
    return found


def by_deadline(replies: list[Reply]) -> dict[str, dict[str, int]]:
    """Replies sent, answered and answered in time, for each plugin and deadline."""
    found: dict[str, dict[str, int]] = {}
    for reply in sorted(replies, key=lambda one: (one.plugin, one.deadline_ms or 0)):
        row = found.setdefault(
            f"{reply.plugin} {reply.deadline_ms:.0f} ms", {"sent": 0, "answered": 0, "in_time": 0}
        )
        row["sent"] += 1
        row["answered"] += reply.status == 200
        row["in_time"] += reply.is_in_time
    return found


def describe(replies: list[Reply], step_ms: float) -> dict[str, float]:
    """Shares and overruns of a time without hiccups."""
    accepted = [reply for reply in replies if reply.status == 200]
    over = [reply.overrun_ms for reply in accepted]
    return {
        "sent": len(replies),
        "refused": len(replies) - len(accepted),
        "in_time": sum(reply.is_in_time for reply in accepted) / max(len(accepted), 1),
        "in_time_at_service": sum(reply.is_in_time_at_service for reply in accepted) / max(len(accepted), 1),
        "overrun_p99_ms": report.percentile(over, 0.99) if over else 0.0,
        "overrun_max_ms": max(over, default=0.0),
        "step_ms": step_ms,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Middle, tail and worst."""
    return {
        "p50": report.median(values),
        "p99": report.percentile(values, 0.99),
        "p999": report.percentile(values, 0.999),
        "max": max(values),
    }


def describe_hiccup(replies: list[Reply], ended_s: float) -> dict[str, Any]:
    """How soon each plugin was served again, and what became of those sent later than a second after."""
    after = [reply for reply in replies if reply.sent_s >= ended_s]
    late = [reply for reply in after if reply.sent_s >= ended_s + 1.0]
    accepted = [reply for reply in late if reply.status == 200]
    plugins = sorted({reply.plugin for reply in replies})
    firsts = {
        plugin: min((r.sent_s + r.took_s for r in after if r.plugin == plugin and r.is_in_time), default=None)
        for plugin in plugins
    }
    return {
        "again_s": {name: None if first is None else first - ended_s for name, first in firsts.items()},
        "sent_later": len(late),
        "refused_later": len(late) - len(accepted),
        "in_time_later": sum(reply.is_in_time for reply in accepted) / max(len(accepted), 1),
        "in_time_later_at_service": sum(r.is_in_time_at_service for r in accepted) / max(len(accepted), 1),
    }


async def measure(bench: Bench, seconds: float, after_s: float) -> dict[str, Any]:
    """Everything, one after the other."""
    alone_ms = {plugin: await bench.alone(plugin, 24) for plugin in bench.bodies}
    full = await bench.rate(max(seconds / 6, 3.0))
    rate = LOAD * full
    enough = asyncio.Event()
    lag = asyncio.create_task(bench.lag(enough))
    steady = await bench.load(rate, seconds, alone_ms)
    enough.set()
    late_ms, health_ms = await lag
    step_ms = max(lane["tick_ms"] for lane in (await status(bench.port)).values())
    hiccups: dict[str, tuple[float, Callable[[], Awaitable[None]]]] = {
        "stopped 0.1 s": (0.1, lambda: bench.stop(0.1)),
        "stopped 1 s": (1.0, lambda: bench.stop(1.0)),
        "stopped 5 s": (5.0, lambda: bench.stop(5.0)),
        "busy 3 s": (3.0, lambda: bench.hog(3.0)),
        "33 megapixels": (3.0, bench.large_frame),
        "slow disk 3 s": (3.0, lambda: bench.slow_down_disk(3.0)),
    }
    after = {}
    for name, (takes_s, happen) in hiccups.items():
        running = asyncio.create_task(bench.load(rate, 2.0 + takes_s + after_s, alone_ms))
        await asyncio.sleep(2.0)
        await happen()
        ended_s = time.monotonic()
        after[name] = describe_hiccup(await running, ended_s)
    return {
        "alone_ms": alone_ms,
        "full_rate_per_s": full,
        "rate_per_s": rate,
        "steady": describe(steady, step_ms),
        "callers_loop_late_ms": spread(late_ms),
        "healthz_ms": spread(health_ms),
        "late": [
            {"plugin": one.plugin, "deadline_ms": one.deadline_ms, "took_ms": one.took_s * 1e3}
            | {"service_ms": one.service_ms}
            for one in steady
            if one.status == 200 and not one.is_in_time
        ],
        "by_deadline": by_deadline(steady),
        "hiccups": after,
    }


def main() -> None:
    """Measure, print, write."""
    options = report.parser(__doc__)
    options.add_argument("--seconds", type=float, default=60.0, help="of the time without hiccups")
    options.add_argument("--after", type=float, default=10.0, help="seconds looked at after each hiccup")
    options.add_argument("--callers", type=int, default=64)
    chosen = options.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    bodies = {
        "vision": (FRAMES[0].read_bytes(), "image/webp"),
        "control": (json.dumps({"problem": MPC}).encode(), "application/json"),
    }
    with tempfile.TemporaryDirectory() as folder:
        shim, slow_disk = Path(folder, "slow_disk.so"), Path(folder, "slow")
        source = Path(__file__).with_name("slow_disk.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", shim, source, "-ldl"], check=True)
        server = start(
            port,
            f"{folder}/telemetry",
            plugins=tuple(bodies),
            environment={"LD_PRELOAD": str(shim), "SLOW_DISK": str(slow_disk)},
        )
        try:
            bench = Bench(port, server, bodies, chosen.callers, slow_disk)
            results = asyncio.run(measure(bench, chosen.seconds, chosen.after))
        finally:
            server.send_signal(signal.SIGCONT)
            server.terminate()
            server.wait()
    steady = results["steady"]
    print(
        f"{results['rate_per_s']:.0f} of {results['full_rate_per_s']:.0f} answers/s, {chosen.callers} callers"
    )
    report.table(list(steady), [list(steady.values())])
    for name in ("callers_loop_late_ms", "healthz_ms"):
        report.table([name, *results[name]], [["", *results[name].values()]])
    for late in results["late"]:
        print("late", late)
    report.table(
        ["deadline", "sent", "answered", "in time"],
        [[name, *row.values()] for name, row in results["by_deadline"].items()],
    )
    report.table(
        [
            "hiccup",
            *(f"{name} again s" for name in bodies),
            "sent > 1 s later",
            "refused",
            "in time",
            "at service",
        ],
        [
            [name, *row["again_s"].values(), *list(row.values())[1:]]
            for name, row in results["hiccups"].items()
        ],
    )
    report.write(chosen.json, "deadlines", results)


if __name__ == "__main__":
    sys.exit(main())
