"""The mailbox: what a record costs its producer and its reader, and whether any is torn or lost uncounted.

Alone: pushes into a ring, then drains of what is in it. Together: one producer and one reader on threads of
their own, with the reader faster and with it slower than the producer. Every field of every record that was
read is compared with what was pushed under its ticket. Medians over the rounds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from benchmarks import report
from sage_edge.native import RECORD_DTYPE, Ring, RingReader

CAPACITY = 4096
FIELDS = [name for name in RECORD_DTYPE.names or () if name != "seq"]


def numbered(count: int) -> np.ndarray:
    """Records whose fields all follow from their number."""
    records = np.zeros(count, RECORD_DTYPE)
    for name in FIELDS:
        records[name] = np.arange(count).astype(RECORD_DTYPE[name])
    return records


def torn(batch: np.ndarray, pushed: np.ndarray) -> int:
    """Records of a batch that are not the one pushed under their ticket."""
    expected = pushed[batch["seq"].astype(np.int64)]
    wrong = np.zeros(len(batch), bool)
    for name in FIELDS:
        wrong |= batch[name] != expected[name]
    return int(wrong.sum())


def alone(pushed: np.ndarray) -> dict[str, float]:
    """Producer and reader by turns, a ring full at a time: neither ever waits for the other."""
    ring = Ring(CAPACITY)
    reader = RingReader(ring)
    push_s = drain_s = 0.0
    for first in range(0, len(pushed), CAPACITY):
        start = time.perf_counter()
        ring.push_many(pushed[first : first + CAPACITY])
        pushed_at = time.perf_counter()
        reader.drain(CAPACITY)
        push_s += pushed_at - start
        drain_s += time.perf_counter() - pushed_at
    return {"push_ns": push_s / len(pushed) * 1e9, "drain_ns": drain_s / len(pushed) * 1e9}


def together(pushed: np.ndarray, burst: int, produce_pause_s: float, read_pause_s: float) -> dict[str, float]:
    """Both at once; the slower side rests after each burst or batch."""
    ring = Ring(CAPACITY)
    finished = threading.Event()

    def produce() -> None:
        for first in range(0, len(pushed), burst):
            ring.push_many(pushed[first : first + burst])
            if produce_pause_s:
                time.sleep(produce_pause_s)
        finished.set()

    reader = RingReader(ring)
    batches = []
    producer = threading.Thread(target=produce)
    start = time.perf_counter()
    producer.start()
    while True:
        last_round = finished.is_set()
        batch = reader.drain(CAPACITY)
        if len(batch):
            batches.append(batch)
        elif last_round:
            break
        if read_pause_s:
            time.sleep(read_pause_s)
    elapsed_s = time.perf_counter() - start
    producer.join()
    read = sum(map(len, batches))
    return {
        "read": read,
        "lost": reader.lost,
        "torn": sum(torn(batch, pushed) for batch in batches),
        "uncounted": len(pushed) - read - reader.lost,
        "drained_per_s": read / elapsed_s,
    }


def rounds_of(measure: Callable[[], dict[str, float]], rounds: int) -> dict[str, float]:
    """Medians of the rates, totals of the counts."""
    results = [measure() for _ in range(rounds)]
    counts = {"read", "lost", "torn", "uncounted"}
    return {
        name: (sum if name in counts else report.median)([result[name] for result in results])
        for name in results[0]
    }


def main() -> None:
    """Measure, print, write; fail if a record was torn or lost uncounted."""
    options = report.parser(__doc__)
    options.add_argument("--records", type=int, default=2**20)
    options.add_argument("--rounds", type=int, default=9)
    chosen = options.parse_args()
    pushed = numbered(chosen.records)
    single = rounds_of(lambda: alone(pushed), chosen.rounds)
    single["drained_per_s"] = 1e9 / single["drain_ns"]
    meetings = {
        "both at full speed": rounds_of(lambda: together(pushed, CAPACITY, 0.0, 0.0), chosen.rounds),
        "reader faster": rounds_of(lambda: together(pushed[: 2**16], 64, 1e-4, 0.0), chosen.rounds),
        "reader slower": rounds_of(lambda: together(pushed, CAPACITY, 0.0, 2e-3), chosen.rounds),
    }
    report.table(list(single), [list(single.values())])
    print()
    report.table(
        ["together", *meetings["reader faster"]],
        [[name, *row.values()] for name, row in meetings.items()],
    )
    report.write(chosen.json, "mailbox", {"alone": single, "together": meetings})
    assert not any(row["torn"] or row["uncounted"] for row in meetings.values()), "torn or uncounted records"


if __name__ == "__main__":
    main()
