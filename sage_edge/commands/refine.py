"""``sage-edge refine``: files in, the best answers within a budget beside them."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sage_edge import results
from sage_edge.commands.options import (
    EXIT_INPUT,
    Commands,
    add_command,
    add_settings,
    describe,
    settings_of,
)
from sage_edge.errors import ParameterError, SageError
from sage_edge.frames import overlay_png
from sage_edge.inputs import Limits, Part
from sage_edge.irp import Answer
from sage_edge.orchestrator import HRM, Budget, Result, open_hrm


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "refine", "Refine files; writes answers as JSON, and pictures.", run)
    parser.add_argument("plugin", metavar="NAME", help="the plugin, which alone is loaded")
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT", help="a file of what the plugin takes"
    )
    parser.add_argument("--out", type=Path, default=Path("var/refined"), help="folder of the results")
    parser.add_argument("--question", metavar="TEXT", help="what is asked of the files (for language)")
    for entry in fields(Budget):
        kind = int if entry.name in ("max_steps", "branches") else float
        parser.add_argument(f"--{entry.name.replace('_', '-')}", dest=f"budget_{entry.name}", type=kind)
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Refine every file; one that cannot be is named, and the others are done."""
    asked = None if options.question is None else json.dumps(options.question, ensure_ascii=False)
    settings = settings_of(options, {f"{options.plugin}.question": asked}, only=options.plugin)
    settings = replace(settings, telemetry_dir="")
    given = {entry.name: getattr(options, f"budget_{entry.name}") for entry in fields(Budget)}
    budget = Budget(**{name: value for name, value in given.items() if value is not None})
    limits = Limits(max_pixels=settings.max_frame_pixels, max_bytes=settings.max_body_bytes)
    _check_names(options.inputs, options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with open_hrm(settings) as hrm:
        files = tqdm(options.inputs, unit="frame", disable=len(options.inputs) < 2)
        for path in files:
            try:
                files.write(_refine_file(hrm, options.plugin, path, budget, options.out, limits))
            except (SageError, OSError) as exc:
                files.write(f"sage-edge: {describe(exc, path)}", file=sys.stderr)
                failed += 1
    return EXIT_INPUT if failed else 0


def _check_names(inputs: list[Path], out: Path) -> None:
    """Make sure that no file would overwrite another one's results, or be overwritten itself.

    Raises:
        ParameterError: Two inputs have the same stem, or one is the ``STEM.json`` that would be written.
    """
    stem, count = Counter(path.stem for path in inputs).most_common(1)[0]
    if count > 1:
        raise ParameterError(f"INPUT: {count} files would write {stem}.json; give each call its own --out")
    for path in inputs:
        if (out / f"{path.stem}.json").resolve() == path.resolve():
            raise ParameterError(f"INPUT: {path} would be overwritten by its answer; give another --out")


def _refine_file(hrm: HRM, plugin: str, path: Path, budget: Budget, out: Path, limits: Limits) -> str:
    """Refine one file and write its answer: ``STEM.json``, and the pictures that there are of it.

    Args:
        hrm: A started orchestrator.
        plugin: The plugin's name.
        path: The file; its suffix tells of what type it is, and one that is not known is looked at.
        budget: What it may spend.
        out: The folder to write to.
        limits: How much the file may hold.

    Returns:
        A line about the refinement.

    Raises:
        OSError: A file cannot be read or written.
        SageError: The file is no input of the plugin's kind, or the request was refused or failed.
    """
    kind = hrm.require(plugin).takes
    content = path.read_bytes()
    if not content:
        raise ParameterError(f"expected a {kind.name}, got an empty file")
    damage: list[str] = []
    part = Part(content, kind.suffixes.get(path.suffix.lower(), ""))
    given = kind.from_part(part, replace(limits, note=damage.append))
    prepared = hrm.prepare(plugin, given)
    result = hrm.submit(plugin, prepared, budget, damage="; ".join(damage)).future.result()
    document = results.describe(result, result.queue_ms + result.refine_ms, with_content=False)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    (out / f"{path.stem}.json").write_text(text + "\n", encoding="utf-8")
    written = ["json"]
    for name, picture in _pictures(result.answer, given).items():
        (out / f"{path.stem}.{name}.png").write_bytes(picture)
        written.append(f"{name}.png")
    return f"{path}: {_told(result.answer)}{_summary(result)} -> {out / path.stem}.{{{','.join(written)}}}"


def _pictures(answer: Answer, given: Any) -> dict[str, bytes]:
    """The PNGs of an answer by name: of a mask also what it looks like on its frame."""
    picture = results.picture_of(answer)
    if picture is None:
        return {}
    if not answer.palette:
        return {"answer": picture}
    pictures = {"mask": picture}
    if isinstance(given, np.ndarray) and given.dtype == np.uint8 and given.shape == (*answer.array.shape, 3):
        pictures["overlay"] = overlay_png(given, answer.array, answer.palette)
    return pictures


def _told(answer: Answer) -> str:
    """An answer that is a text, as JSON has it; nothing of another."""
    if "text" not in answer.details:
        return ""
    return json.dumps(answer.details["text"], ensure_ascii=False) + ", "


def _summary(result: Result) -> str:
    run = result.run
    trust = "none" if result.trust is None else f"{result.trust:.2f}"
    return (
        f"{run.step_idx} steps, halt {run.halt_reason}, E {run.best_E:.4g}, "
        f"trust {trust}, {result.refine_ms:.0f} ms, {result.ATP_spent:.0f} ATP"
        f"{', damaged: ' + result.damage if result.damage else ''}"
    )
