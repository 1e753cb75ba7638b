"""Every benchmark that needs no data set, one after the other: ``make bench``; results go to build/bench."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAMES = (
    "latent_step",
    "mailbox",
    "drain",
    "telemetry",
    "loop",
    "plugins",
    "memory",
    "http",
    "soak",
    "deadlines",
    "control.closed_loop",
    "orchestrator.overhead",
    "orchestrator.load",
    "orchestrator.endurance",
)
OUT = Path("build/bench")


def main() -> None:
    """Stops at the first that fails."""
    for name in NAMES:
        print(f"==> {name}", flush=True)
        command = [
            sys.executable,
            "-m",
            f"benchmarks.{name}",
            "--json",
            str(OUT / f"{name}.json"),
            *sys.argv[1:],
        ]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
