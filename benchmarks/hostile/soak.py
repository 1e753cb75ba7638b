"""All attacks in rotation beside honest callers: are these still served, and does the service stay whole?

The real service in a process of its own; attacks come from another process, honest callers with deadlines
from a third, all on the same machine. Exits 1 when the service died, said 500, logged a traceback, or
kept a journal that is not sound.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.deadlines import MPC
from benchmarks.hostile.attacks import ATTACKS, JSON, exchange, request
from benchmarks.soak import FRAMES, start

#: Times an answer takes alone that its caller allows, at least ``_LEAST_MS``.
PATIENCE = 10
_LEAST_MS = 250.0
_PAUSE_S = 0.1
_ATTACKS = {attack.__name__: attack for attack in ATTACKS}
#: Replies that a service may give to anything: never another 5xx.
_ALLOWED_5XX = frozenset({503})


class Asked(NamedTuple):
    """What became of one honest request."""

    status: int
    took_ms: float
    deadline_ms: float

    @property
    def is_in_time(self) -> bool:
        return self.status == 200 and self.took_ms <= self.deadline_ms


@dataclass(slots=True)
class Phase:
    """What happened during one attack, or before the first."""

    asked: list[Asked] = field(default_factory=list)
    health_ms: list[float] = field(default_factory=list)
    resident_mib: float = 0.0
    hostile: Counter[int] = field(default_factory=Counter)

    def row(self) -> dict[str, Any]:
        answered = [one for one in self.asked if one.status == 200]
        return {
            "asked": len(self.asked),
            "answered": len(answered),
            "in_time_of_answered": sum(one.is_in_time for one in answered) / max(len(answered), 1),
            "in_time_of_all": sum(one.is_in_time for one in self.asked) / max(len(self.asked), 1),
            "refused": dict(Counter(one.status for one in self.asked if one.status != 200)),
            "health_p50_ms": report.median(self.health_ms) if self.health_ms else None,
            "health_max_ms": max(self.health_ms, default=None),
            "resident_mib": self.resident_mib,
            "hostile": {str(status): count for status, count in sorted(self.hostile.items())},
        }


def attack(name: str, port: int, seconds: float) -> Counter[int]:
    """Run one attack in this process."""
    return asyncio.run(_ATTACKS[name](port, time.monotonic() + seconds))


def peak_mib(pid: int) -> float:
    """VmHWM of a process since the last call, which begins the count anew."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


class Honest:
    """Callers with deadlines, and one that asks for the health of the service."""

    def __init__(self, port: int, callers: int) -> None:
        self._port = port
        self._callers = callers
        self._bodies = {
            "vision": (FRAMES[0].read_bytes(), "image/webp"),
            "control": (json.dumps({"problem": MPC}).encode(), JSON),
        }
        self._deadline_ms: dict[str, float] = {}

    async def look(self) -> dict[str, float]:
        """Learn what an answer takes alone, and what is allowed for it; milliseconds by plugin."""
        for plugin in self._bodies:
            took = [(await self._ask(plugin, None)).took_ms for _ in range(12)]
            self._deadline_ms[plugin] = max(PATIENCE * report.median(took), _LEAST_MS)
        return self._deadline_ms

    async def during(self, seconds: float, phase: Phase) -> None:
        """Ask until the end, each caller again a little after its reply."""
        end_s = time.monotonic() + seconds
        await asyncio.gather(
            *(self._caller(end_s, phase, number) for number in range(self._callers)),
            self._health(end_s, phase),
        )

    async def _caller(self, end_s: float, phase: Phase, number: int) -> None:
        pick = random.Random(number)  # noqa: S311 - arrivals
        while time.monotonic() < end_s:
            plugin = pick.choice(list(self._bodies))
            phase.asked.append(await self._ask(plugin, self._deadline_ms[plugin]))
            await asyncio.sleep(pick.uniform(0, 4 * _PAUSE_S))

    async def _health(self, end_s: float, phase: Phase) -> None:
        while time.monotonic() < end_s:
            start_s = time.monotonic()
            await exchange(self._port, request("/healthz", method="GET"))
            phase.health_ms.append((time.monotonic() - start_s) * 1e3)
            await asyncio.sleep(_PAUSE_S)

    async def _ask(self, plugin: str, deadline_ms: float | None) -> Asked:
        query = "" if deadline_ms is None else f"?deadline_ms={deadline_ms:.0f}"
        start_s = time.monotonic()
        try:
            status = await exchange(self._port, request(f"/v1/refine/{plugin}{query}", *self._bodies[plugin]))
        except OSError:
            status = 0
        return Asked(status, (time.monotonic() - start_s) * 1e3, deadline_ms or float("inf"))


async def rotate(
    server: subprocess.Popen[bytes], port: int, names: Sequence[str], *, seconds: float, callers: int
) -> dict[str, Phase]:
    """Honest load alone, then beside each attack in turn until the time is over."""
    honest = Honest(port, callers)
    await honest.look()
    phases = {"nobody": Phase(), **{name: Phase() for name in names}}
    each_s = seconds / len(phases)
    turns = max(1, round(each_s / 20))
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as hostile:
        await loop.run_in_executor(hostile, time.sleep, 0)
        for turn in range(turns):
            for name, phase in phases.items():
                peak_mib(server.pid)
                beside = honest.during(each_s / turns, phase)
                if name == "nobody":
                    await beside
                else:
                    done = loop.run_in_executor(hostile, attack, name, port, each_s / turns)
                    await beside
                    phase.hostile += await done
                phase.resident_mib = max(phase.resident_mib, peak_mib(server.pid))
                print(f"turn {turn + 1} of {turns}: {name}", file=sys.stderr, flush=True)
    return phases


def verdict(server: subprocess.Popen[bytes], telemetry: str, phases: dict[str, Phase]) -> dict[str, Any]:
    """End the service, and say what must be true of it."""
    is_alive = server.poll() is None
    server.terminate()
    status = server.wait()
    audit = subprocess.run(
        [sys.executable, "-m", "sage_edge", "audit", "verify", telemetry, "--json"],
        capture_output=True,
        check=False,
    )
    statuses = sum((phase.hostile for phase in phases.values()), Counter[int]())
    statuses += Counter(one.status for phase in phases.values() for one in phase.asked)
    found = json.loads(audit.stdout)[0]
    return {
        "lived": is_alive and status == 0,
        "faults": {
            str(code): count for code, count in statuses.items() if code >= 500 and code not in _ALLOWED_5XX
        },
        "audit_sound": found["is_sound"],
        "records": found["records"],
        "records_lost": found["lost"],
        "peak_mib": max(phase.resident_mib for phase in phases.values()),
    }


def main() -> None:
    """Measure, print, write."""
    options = report.parser(__doc__)
    options.add_argument("--seconds", type=float, default=1200.0)
    options.add_argument("--callers", type=int, default=8)
    options.add_argument("--only", nargs="+", choices=list(_ATTACKS), default=list(_ATTACKS))
    chosen = options.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as telemetry, tempfile.TemporaryFile() as log:
        server = start(port, telemetry, plugins=("vision", "control"), log=log)
        try:
            phases = asyncio.run(
                rotate(server, port, chosen.only, seconds=chosen.seconds, callers=chosen.callers)
            )
            ended = verdict(server, telemetry, phases)
            log.seek(0)
            lines = log.read().splitlines()
            ended |= {"log_lines": len(lines), "tracebacks": sum(b"Traceback" in line for line in lines)}
        finally:
            server.kill()
            server.wait()
    rows = {name: phase.row() for name, phase in phases.items()}
    columns = [name for name in next(iter(rows.values())) if name not in ("refused", "hostile")]
    report.table(["beside", *columns], [[name, *(row[key] for key in columns)] for name, row in rows.items()])
    for name, row in rows.items():
        print(f"{name}: honest refused {row['refused']}, hostile got {row['hostile']}")
    report.table(list(ended), [list(ended.values())])
    report.write(chosen.json, "hostile.soak", {"seconds": chosen.seconds, "beside": rows, "end": ended})
    is_whole = ended["lived"] and ended["audit_sound"] and not ended["faults"] and not ended["tracebacks"]
    sys.exit(0 if is_whole else 1)


if __name__ == "__main__":
    main()
