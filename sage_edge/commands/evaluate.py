"""``sage-edge evaluate``: how good a model is, and what halting early saves."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from sage_edge.commands.options import Commands, add_command, add_settings, settings_of
from sage_edge.evaluation import evaluate, find_labelled, time_slots
from sage_edge.orchestrator import open_hrm


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "evaluate", "Measure a model on labelled frames.", run)
    parser.add_argument("plugin", choices=["vision"])
    parser.add_argument("--data", type=Path, required=True, help="folder with SPLIT/ and SPLITannot/")
    parser.add_argument("--split", required=True)
    parser.add_argument("--model", help="a model that ships, or a model folder; as --set vision.model=MODEL")
    parser.add_argument("--void", type=int, help="label of pixels that do not count; default: the model's")
    parser.add_argument("--json", type=Path, help="write the whole report there")
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Measure, print a table, write the report if it was asked for."""
    settings = replace(settings_of(options, {"vision.model": options.model}), telemetry_dir="")
    frames = find_labelled(options.data, options.split)
    if options.json:
        options.json.touch()  # better refused now than after an hour of work
    with closing(open_hrm(settings)) as hrm:
        report = evaluate(hrm, frames, void=options.void)
    report["split"] = options.split
    report["time"] = time_slots(settings, frames)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    _write_table(report, sys.stdout)
    return 0


def _write_table(report: dict[str, Any], out: TextIO) -> None:
    out.write(f"{report['model']} on {report['split']}: {report['frames']} frames, {report['backend']}\n")
    out.write(f"{'run':>10} {'mIoU':>7} {'steps':>6} {'MMAC':>7} {'trust':>6}\n")
    for name, run in report["runs"].items():
        out.write(
            f"{name:>10} {run['mIoU']:7.4f} {run['mean_steps']:6.2f} {run['mean_macs'] / 1e6:7.1f} "
            f"{run['trust']['mean']:6.3f}\n"
        )
    out.write(
        f"default halt: {report['compute_saved']:.2f}x of all multiply-adds saved, "
        f"{100 * report['mIoU_lost']:.2f} mIoU points lost\n"
    )
    for slots, timed in report["time"].items():
        out.write(
            f"{slots}: {timed['default_ms']:.1f} ms per frame, {timed['all_steps_ms']:.1f} after all steps "
            f"({timed['time_saved']:.2f}x)\n"
        )
    for unit in ("frames", "tiles"):
        scores = {name: row["AUROC"] for name, row in report["trust"][unit].items() if isinstance(row, dict)}
        told = ", ".join(f"{name} {score:.3f}" for name, score in scores.items() if score is not None)
        out.write(f"failing {unit} told apart (AUROC): {told or 'nothing fails, or everything does'}\n")
