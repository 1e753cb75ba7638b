"""The vision plugin as it is served: refill beside static batches, waiting under load, one POST in parts.

    python -m benchmarks.gpu.serving [--backend tensorrt] [--slots 8 16 32] [--requests 400] [--json FILE]

*refill* hands every frame in at once; *static* hands in as many as there are slots and waits for the last of
them (early exit, no refill); *fixed* is static with every step taken. All go through the orchestrator and the
backend's own loop, which the results name. Then Poisson arrivals at --load of what *static* sustains, for
refill and static. Last, frames over HTTP, one at a time: where the time goes. The plans have to be there
(`sage-edge engines build`). With ``--backend cpu`` and small numbers it is a trial of the script, and says
nothing about a GPU.
"""

from __future__ import annotations

import argparse
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from benchmarks import report
from sage_edge import HRM, Budget, Settings, open_hrm
from sage_edge.frames import decode_image
from sage_edge.service import create_app

FILES = sorted((Path(__file__).parents[2] / "demos" / "frames").glob("*.webp"))
#: The plugin's own halt, and every step that it may take.
EARLY, EVERY_STEP = Budget(), Budget(eps=0.0)
POSTS = 20


class Bench:
    """A served plugin and prepared frames that need different numbers of steps."""

    def __init__(self, settings: Settings, requests: int) -> None:
        self.hrm = open_hrm(settings)
        self.slots = settings.slots
        frames = [decode_image(path.read_bytes(), 1 << 22) for path in FILES]
        self.inputs = [
            self.hrm.prepare("vision", np.roll(frames[n % len(frames)] // (1 + n % 3), 8 * n, axis=1))
            for n in range(requests)
        ]

    def refine(self, inputs: Sequence[Any], budget: Budget) -> list[Any]:
        """Hand all in and wait for all."""
        tickets = [self.hrm.submit("vision", x0, budget) for x0 in inputs]
        return [ticket.future.result() for ticket in tickets]

    def refill(self, budget: Budget) -> list[Any]:
        """Every frame at once."""
        return self.refine(self.inputs, budget)

    def static(self, budget: Budget) -> list[Any]:
        """As many as there are slots, and all of them to the end, before the next ones begin."""
        batches = range(0, len(self.inputs), self.slots)
        return [done for n in batches for done in self.refine(self.inputs[n : n + self.slots], budget)]


def rate(work: Callable[[], list[Any]], rounds: int) -> tuple[float, list[Any]]:
    """Answers per second, the median of some rounds, and the answers of the last."""
    rates = []
    for _ in range(rounds):
        start_s = time.perf_counter()
        answers = work()
        rates.append(len(answers) / (time.perf_counter() - start_s))
    return report.median(rates), answers


def waits_ms(bench: Bench, rate_per_s: float, *, refill: bool) -> list[float]:
    """From arrival to answer of Poisson arrivals; without refill a batch begins when the last one is done."""
    rng = np.random.default_rng(0)
    due_s = time.perf_counter() + np.cumsum(rng.exponential(1 / rate_per_s, len(bench.inputs)))
    waits: list[float] = []
    batch: list[Any] = []
    for number, x0 in enumerate(bench.inputs):
        time.sleep(max(0.0, due_s[number] - time.perf_counter()))
        if not refill and (len(batch) == bench.slots or all(future.done() for future in batch)):
            wait(batch)
            batch = []
        future = bench.hrm.submit("vision", x0, EARLY).future
        future.add_done_callback(lambda _, due=due_s[number]: waits.append(time.perf_counter() - due))
        batch.append(future)
    wait(batch)
    return [1e3 * value for value in waits]


def measure(settings: Settings, requests: int, rounds: int, load: float) -> dict[str, Any]:
    """One width."""
    bench = Bench(settings, requests)
    refill, answers = rate(lambda: bench.refill(EARLY), rounds)
    static, same = rate(lambda: bench.static(EARLY), rounds)
    fixed, _ = rate(lambda: bench.static(EVERY_STEP), rounds)
    waiting = {name: waits_ms(bench, load * static, refill=name == "refill") for name in ("refill", "static")}
    result = {
        "slots": settings.slots,
        "loop": bench.hrm.status()["vision"]["loop"],
        "mean_steps": float(np.mean([answer.run.step_idx for answer in answers])),
        "refill_per_s": refill,
        "refill_over_static": refill / static,
        "refill_over_fixed": refill / fixed,
        "same_answers": sum(
            bool((a.answer.array == b.answer.array).all()) for a, b in zip(answers, same, strict=True)
        )
        / len(answers),
        "p99_ms": {name: report.percentile(values, 0.99) for name, values in waiting.items()},
        "post_ms": post_in_parts(bench.hrm),
    }
    bench.hrm.close()
    return result


def post_in_parts(hrm: HRM) -> dict[str, float]:
    """Medians of one POST at a time, milliseconds: ``http`` is what the caller waited beside all others."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/refine/vision"
        config = uvicorn.Config(create_app(hrm), lifespan="off", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener.dup()]})
        thread.start()
        rows = [one_post(url, hrm) for _ in range(POSTS)]
        server.should_exit = True
        thread.join()
    return {part: report.median([row[part] for row in rows]) for part in rows[0]}


def one_post(url: str, hrm: HRM) -> dict[str, float]:
    """Its parts: encoder, steps and decoder by the loop's own means, each with its copies."""
    start_s = time.perf_counter()
    with urllib.request.urlopen(urllib.request.Request(url, FILES[0].read_bytes()), timeout=60) as reply:
        answer = json.load(reply)
    total_ms = 1e3 * (time.perf_counter() - start_s)
    time_ms = answer["time_ms"]
    served = hrm.status()["vision"]
    parts = {
        "queue": time_ms["queue"],
        "encode": served["encode_ms"],
        "steps": answer["steps"] * served["tick_ms"],
        "decode": served["decode_ms"],
    }
    rest = time_ms["refine"] - sum(parts[name] for name in ("encode", "steps", "decode"))
    http = total_ms - time_ms["queue"] - time_ms["refine"]
    return {"total": total_ms, "http": http, **parts, "rest": rest}


def main() -> None:
    """Measure, print, write."""
    options: argparse.ArgumentParser = report.parser(__doc__)
    options.add_argument("--backend", choices=["cpu", "tensorrt"], default="tensorrt")
    options.add_argument("--precision", choices=["fp32", "fp16"], default="fp16")
    options.add_argument("--slots", type=int, nargs="+", default=[8, 16, 32])
    options.add_argument("--requests", type=int, default=400)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--load", type=float, default=0.7)
    chosen = options.parse_args()
    results = []
    for slots in chosen.slots:
        settings = Settings(
            backend=chosen.backend,
            precision=chosen.precision,
            slots=slots,
            queue_size=chosen.requests,
            telemetry_dir="",
        )
        results.append(measure(settings, chosen.requests, chosen.rounds, chosen.load))
    report.table(
        [
            "slots",
            "loop",
            "steps",
            "per s",
            "refill/static",
            "refill/fixed",
            "p99 refill ms",
            "p99 static ms",
        ],
        [
            [
                r["slots"],
                r["loop"]["mode"],
                r["mean_steps"],
                r["refill_per_s"],
                r["refill_over_static"],
                r["refill_over_fixed"],
                r["p99_ms"]["refill"],
                r["p99_ms"]["static"],
            ]
            for r in results
        ],
    )
    report.write(chosen.json, "gpu.serving", results)


if __name__ == "__main__":
    main()
