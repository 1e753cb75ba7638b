"""Memory of the service: idle and at full load, and what one more slot takes.

The service's own orchestrator with the model that ships, in a fresh process for each number of slots. It is
the resident set that counts; page cache and a container's limit are left out.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

from benchmarks import report
from sage_edge import Settings
from sage_edge.frames import decode_image
from sage_edge.orchestrator import open_hrm

FRAME = Path(__file__).parents[1] / "demos" / "frames" / "nuclei.webp"


def resident_mib() -> float:
    """VmRSS of this process."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise LookupError("VmRSS")


def measure(slots: int) -> None:
    """Print the resident set when ready, and after three full batches."""
    with closing(open_hrm(Settings(slots=slots, telemetry_dir=""))) as hrm:
        idle_mib = resident_mib()
        prepared = hrm.prepare("vision", decode_image(FRAME.read_bytes(), 1 << 24))
        for _ in range(3):
            tickets = [hrm.submit("vision", prepared) for _ in range(slots)]
            for ticket in tickets:
                ticket.future.result()
        print(idle_mib, resident_mib())


def main() -> None:
    """Measure, print, write."""
    options = report.parser(__doc__)
    options.add_argument("--slots", type=int, nargs="+", default=[1, 4, 8, 16])
    options.add_argument("--measure", type=int, help="measure one number of slots in this process")
    chosen = options.parse_args()
    if chosen.measure:
        measure(chosen.measure)
        return
    rows = []
    for slots in chosen.slots:
        command = [sys.executable, "-m", "benchmarks.memory", "--measure", str(slots)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        idle_mib, loaded_mib = map(float, printed.split())
        rows.append({"slots": slots, "idle_mib": idle_mib, "loaded_mib": loaded_mib})
    report.table(["slots", "idle MiB", "loaded MiB"], [list(row.values()) for row in rows])
    first, last = rows[0], rows[-1]
    per_slot = (last["loaded_mib"] - first["loaded_mib"]) / max(1, last["slots"] - first["slots"])
    print(f"one more slot: {per_slot:.1f} MiB at full load")
    report.write(chosen.json, "memory", {"rows": rows, "mib_per_slot": per_slot})


if __name__ == "__main__":
    main()
