"""Refine labelled frames with all steps, with the early stop and with fixed steps; show what is saved.

    python demos/vision_latent_irp.py
    python demos/vision_latent_irp.py --model camvid-quick --data FOLDER --split val

FOLDER holds ``SPLIT/NAME.webp`` beside ``SPLITannot/NAME.png``. The figure needs matplotlib:
`pip install --group demo`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from sage_edge import Budget, Settings, open_hrm
from sage_edge.evaluation import find_labelled, measure

HERE = Path(__file__).parent
#: What has to hold of the early stop: compute saved, and points of mIoU that it may lose.
SAVED, LOST = 2.0, 1.0
#: Thresholds of the early stop that the figure's curve goes through.
EPS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


def main() -> int:
    """Returns the exit code: 1 when what has to hold does not, or a record of the telemetry is not valid."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nuclei", help="a model that ships, or a model folder")
    parser.add_argument("--data", type=Path, default=HERE / "frames" / "labelled")
    parser.add_argument("--split", default="sample")
    parser.add_argument("--threads", type=int, default=0, help="0 means all cores")
    parser.add_argument("--out", type=Path, default=Path("var/demo-vision"))
    options = parser.parse_args()
    journal = options.out / "telemetry" / "telemetry.jsonl"
    journal.unlink(missing_ok=True)
    settings = Settings(
        plugin_config={"vision": {"model": options.model}},
        threads=options.threads,
        telemetry_dir=str(journal.parent),
    )
    frames = find_labelled(options.data, options.split)
    with closing(open_hrm(settings)) as hrm:
        last = hrm.require("vision").halting.max_steps
        fixed = [measure(hrm, frames, Budget(max_steps=k, eps=0.0)) for k in range(last + 1)]
        adaptive = [measure(hrm, frames, Budget(eps=eps)) for eps in EPS]
        default = measure(hrm, frames, Budget())
    show(options, len(frames), fixed, default)
    holds = judge(fixed[-1], default)
    draw(fixed, adaptive, default, energies_of_full_runs(journal, last), options.out)
    print(f"\ntelemetry: {journal}", flush=True)
    is_valid = (
        subprocess.call([sys.executable, "-m", "sage_edge", "telemetry", "validate", str(journal)]) == 0
    )
    return 0 if holds and is_valid else 1


def show(options: argparse.Namespace, count: int, fixed: list[Any], default: dict[str, Any]) -> None:
    """The table: compute saved against mIoU lost."""
    full, same = fixed[-1], at_steps(fixed, default["mean_steps"])
    print(f"\n{options.model}, {count} labelled frames of {options.split}\n")
    print(f"{'':24}  steps  MMAC/frame  compute saved   mIoU  points lost  ms/frame")
    for name, run in (("all steps", full), ("early stop", default), ("fixed, as many on average", same)):
        print(
            f"{name:25} {run['mean_steps']:5.2f}  {run['mean_macs'] / 1e6:10.1f}  "
            f"{full['mean_macs'] / run['mean_macs']:12.2f}x  {run['mIoU']:.3f}  "
            f"{100 * (full['mIoU'] - run['mIoU']):11.2f}  {run['refine_ms_median']:8.1f}"
        )


def judge(full: dict[str, Any], default: dict[str, Any]) -> bool:
    """Whether the early stop saves enough and loses little enough; says so."""
    saved = full["mean_macs"] / default["mean_macs"]
    lost = 100 * (full["mIoU"] - default["mIoU"])
    checks = {
        f"compute saved {saved:.2f}x, at least {SAVED}x": saved >= SAVED,
        f"points lost {lost:.2f}, at most {LOST}": lost <= LOST,
    }
    print("\nacceptance:")
    for said, holds in checks.items():
        print(f"  {'holds' if holds else 'FAILS'}: {said}")
    return all(checks.values())


def at_steps(fixed: list[Any], steps: float) -> dict[str, float]:
    """What a fixed number of steps gives, between two whole ones by interpolation."""
    keys = ("mean_steps", "mean_macs", "mIoU", "refine_ms_median")
    return {key: float(np.interp(steps, range(len(fixed)), [run[key] for run in fixed])) for key in keys}


def energies_of_full_runs(journal: Path, last: int) -> list[list[float]]:
    """The energies of every run that took all steps with its halting off, from the telemetry."""
    runs: dict[int, list[float]] = defaultdict(list)
    for line in journal.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["kind"] == "step" and record["eps"] == 0:
            runs[record["run_id"]].append(record["E"])
    return [energies for energies in runs.values() if len(energies) == last + 1]


def draw(
    fixed: list[Any], adaptive: list[Any], default: dict[str, Any], energies: list[list[float]], out: Path
) -> None:
    """Draw mIoU over mean compute, and the energies over steps of the easiest and the hardest frames."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        print("\nno figure: matplotlib is not installed (pip install --group demo)")
        return
    figure = Figure(figsize=(11, 4.5), layout="tight")
    left, right = figure.subplots(1, 2)
    for label, runs, style in (("fixed steps", fixed, "o-"), ("early stop, by threshold", adaptive, "s--")):
        left.plot([run["mean_macs"] / 1e6 for run in runs], [run["mIoU"] for run in runs], style, label=label)
    left.plot(default["mean_macs"] / 1e6, default["mIoU"], "k*", markersize=14, label="the default halt")
    left.set(xlabel="million multiply-adds per frame", ylabel="mIoU")
    ordered = sorted(energies, key=lambda run: run[-1])
    for label, runs, colour in (("easy", ordered[:3], "tab:green"), ("hard", ordered[-3:], "tab:red")):
        for number, run in enumerate(runs):
            right.plot(run, color=colour, label=label if number == 0 else None)
    right.set(xlabel="step", ylabel="energy: predicted error rate", yscale="log")
    left.legend()
    right.legend()
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "saved.png", dpi=110)
    print(f"\nfigure: {out / 'saved.png'}")


if __name__ == "__main__":
    raise SystemExit(main())
