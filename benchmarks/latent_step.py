"""The latent step beside the same maths in NumPy and in torch eager, and beside a plain copy.

Each contender takes the same float32 states through z <- clamp(z + step_size * delta, lo, hi) and the
relative size of the change, with the energy given; ours also keeps the best state, decides to halt and
publishes a record. Every energy is lower than the one before: the usual case, in which delta is looked at
before the best state is overwritten.

NumPy is given as many threads as we are, or one if that is faster. Bytes: a step reads z and delta and
writes z, 12 per element; a copy (np.copyto, same number of threads, each on its part) reads and writes, 8
per element. "of_copy" is the one bandwidth over the other. Contenders take turns; medians over the rounds;
"spread" is the distance between our quartiles over the median: how noisy the machine was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks import report
from sage_edge.native import HaltPolicy, Ring, SlotTable, ThreadPool, latent_step

try:
    import torch
except ModuleNotFoundError:
    torch = None

LO, HI, STEP_SIZE = -4.0, 4.0, 1e-3
POLICY = HaltPolicy(eps=0.0, max_steps=2**31 - 1)
Contender = Callable[[int], float]  # repeats -> seconds


def arrays(slots: int, elements: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States, directions and room for as much again."""
    random = np.random.default_rng(0)
    z, delta = (random.standard_normal((slots, elements), np.float32) for _ in range(2))
    return z, delta, np.zeros_like(z)


def ours(slots: int, elements: int, threads: int) -> Contender:
    """latent_step on live slots."""
    z, delta, best = arrays(slots, elements)
    table = SlotTable(slots, Ring(1024))
    for run_id in range(slots):
        table.admit(run_id, POLICY, 1.0, now_ns=0)
    step_size = np.full(slots, STEP_SIZE, np.float32)
    energy = np.zeros((slots, 1), np.float32)
    step = partial(
        latent_step, table, z, delta, best, step_size=step_size, lo=LO, hi=HI, energy_terms=energy, now_ns=0
    )
    pool = ThreadPool(threads)

    def run(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            np.subtract(energy, 1, out=energy)
            step(pool=pool)
        return time.perf_counter() - start

    return run


def numpy_rows(z: np.ndarray, delta: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """The same maths on some rows, without allocating; returns the relative size of the change."""
    np.multiply(delta, np.float32(STEP_SIZE), out=moved)
    np.add(z, moved, out=moved)
    np.clip(moved, LO, HI, out=moved)
    np.subtract(moved, z, out=z)
    change = np.einsum("ij,ij->i", z, z)
    np.copyto(z, moved)
    return np.sqrt(change / np.einsum("ij,ij->i", z, z))


def in_numpy(slots: int, elements: int, threads: int) -> Contender:
    """NumPy on parts of each row, one per thread."""
    z, delta, moved = arrays(slots, elements)
    cuts = [elements * part // threads for part in range(threads + 1)]
    parts = [tuple(array[:, begin:end] for array in (z, delta, moved)) for begin, end in pairwise(cuts)]
    helpers = ThreadPoolExecutor(threads)

    def run(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            if threads == 1:
                numpy_rows(*parts[0])
            else:
                wait([helpers.submit(numpy_rows, *part) for part in parts])
        return time.perf_counter() - start

    return run


def in_torch(slots: int, elements: int, threads: int) -> Contender:
    """Torch eager, one kernel after the other."""
    torch.set_num_threads(threads)
    z, delta, _ = (torch.from_numpy(array) for array in arrays(slots, elements))

    def step() -> Any:
        moved = torch.add(z, delta, alpha=STEP_SIZE).clamp_(LO, HI)
        change = torch.linalg.vector_norm(moved - z, dim=1)
        z.copy_(moved)
        return change / torch.linalg.vector_norm(z, dim=1)

    def run(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        return time.perf_counter() - start

    return run


def copying(slots: int, elements: int, threads: int) -> Contender:
    """np.copyto, each thread repeating its own part: no hand-over per copy."""
    source, target, _ = (array.reshape(-1) for array in arrays(slots, elements))
    cuts = [source.size * part // threads for part in range(threads + 1)]
    helpers = ThreadPoolExecutor(threads)

    def repeat(begin: int, end: int, repeats: int) -> None:
        for _ in range(repeats):
            np.copyto(target[begin:end], source[begin:end])

    def run(repeats: int) -> float:
        start = time.perf_counter()
        tasks = [helpers.submit(repeat, *cut, repeats) for cut in pairwise(cuts)]
        wait(tasks)
        return time.perf_counter() - start

    return run


def measure(slots: int, total: int, threads: int, rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds, microseconds per step of ``total`` elements."""
    elements = total // slots
    contenders = {
        "ours": ours(slots, elements, threads),
        "numpy": in_numpy(slots, elements, 1),
        "copy": copying(slots, elements, threads),
    }
    if threads > 1:
        contenders["numpy threaded"] = in_numpy(slots, elements, threads)
    if torch is not None:
        contenders["torch"] = in_torch(slots, elements, threads)
    repeats = max(2, 2**22 // total)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run(2)
    for _ in range(rounds):
        for name, run in contenders.items():
            times[name].append(run(repeats) / repeats * 1e6)
    return summary(total, {name: sorted(samples) for name, samples in times.items()})


def summary(total: int, times: dict[str, list[float]]) -> dict[str, float]:
    """What is reported of one size."""
    medians = {name: report.median(samples) for name, samples in times.items()}
    mine = times["ours"]
    numpy_us = min(medians[name] for name in medians if name.startswith("numpy"))
    copy_gb_s = 8e-3 * total / medians["copy"]
    ours_gb_s = 12e-3 * total / medians["ours"]
    result = {
        "elements": total,
        "ours_us": medians["ours"],
        "spread": (mine[len(mine) * 3 // 4] - mine[len(mine) // 4]) / medians["ours"],
        "numpy_us": numpy_us,
        "numpy_ratio": numpy_us / medians["ours"],
        "ours_gb_s": ours_gb_s,
        "copy_gb_s": copy_gb_s,
        "of_copy": ours_gb_s / copy_gb_s,
    }
    if "torch" in medians:
        result |= {"torch_us": medians["torch"], "torch_ratio": medians["torch"] / medians["ours"]}
    return result


def main() -> None:
    """Measure, print, write."""
    options = report.parser(__doc__)
    options.add_argument("--slots", type=int, default=4)
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options.add_argument("--rounds", type=int, default=21)
    options.add_argument("--largest", type=int, default=2**24, help="elements, all slots together")
    chosen = options.parse_args()
    if torch is None:
        print("torch is not installed here: no row for torch eager")
    sizes = [2**exponent for exponent in range(14, 25, 2) if 2**exponent <= chosen.largest]
    results = {
        threads: [measure(chosen.slots, size, threads, chosen.rounds) for size in sizes]
        for threads in chosen.threads
    }
    for threads, rows in results.items():
        print(f"\n{threads} thread(s), {chosen.slots} slots, float32")
        report.table(list(rows[0]), [list(row.values()) for row in rows])
    report.write(chosen.json, "latent_step", {"slots": chosen.slots, "threads": results})


if __name__ == "__main__":
    main()
