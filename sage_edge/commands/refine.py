"""``sage-edge refine``: image files in, masks and overlays out."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path

from tqdm import tqdm

from sage_edge.commands.options import (
    EXIT_INPUT,
    Commands,
    add_command,
    add_settings,
    describe,
    settings_of,
)
from sage_edge.errors import ParameterError, SageError
from sage_edge.frames import decode_image, mask_png, overlay_png
from sage_edge.orchestrator import HRM, Budget, Result, open_hrm


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "refine", "Refine image files; writes masks and overlays.", run)
    parser.add_argument("plugin", choices=["vision"])
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--out", type=Path, default=Path("var/refined"), help="folder of the results")
    for entry in fields(Budget):
        kind = int if entry.name == "max_steps" else float
        parser.add_argument(f"--{entry.name.replace('_', '-')}", dest=f"budget_{entry.name}", type=kind)
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Refine every file; one that cannot be is named, and the others are done."""
    settings = replace(settings_of(options), telemetry_dir="")
    given = {entry.name: getattr(options, f"budget_{entry.name}") for entry in fields(Budget)}
    budget = Budget(**{name: value for name, value in given.items() if value is not None})
    _refuse_twins(options.images)
    options.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with closing(open_hrm(settings)) as hrm:
        files = tqdm(options.images, unit="frame", disable=len(options.images) < 2)
        for path in files:
            try:
                files.write(_refine_file(hrm, path, budget, options.out, settings.max_frame_pixels))
            except (SageError, OSError) as exc:
                files.write(f"sage-edge: {describe(exc, path)}", file=sys.stderr)
                failed += 1
    return EXIT_INPUT if failed else 0


def _refuse_twins(images: list[Path]) -> None:
    """Two files of one name would overwrite each other's results."""
    stem, count = Counter(path.stem for path in images).most_common(1)[0]
    if count > 1:
        raise ParameterError(
            f"IMAGE: {count} files would write {stem}.mask.png; give each call its own --out"
        )


def _refine_file(hrm: HRM, path: Path, budget: Budget, out: Path, max_pixels: int) -> str:
    """Refine one image, write its mask and overlay; returns a line about it."""
    frame = decode_image(path.read_bytes(), max_pixels)
    result = hrm.submit("vision", hrm.prepare("vision", frame), budget).future.result()
    answer = result.answer
    (out / f"{path.stem}.mask.png").write_bytes(mask_png(answer.array, answer.palette))
    (out / f"{path.stem}.overlay.png").write_bytes(overlay_png(frame, answer.array, answer.palette))
    return f"{path}: {_summary(result)} -> {out / path.stem}.{{mask,overlay}}.png"


def _summary(result: Result) -> str:
    run = result.run
    return (
        f"{run.step_idx} steps, halt {run.halt_reason}, E {run.best_E:.4g}, "
        f"trust {result.trust:.2f}, {result.refine_ms:.0f} ms, {result.ATP_spent:.0f} ATP"
    )
