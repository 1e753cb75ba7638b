"""The command ``sage-edge``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sage_edge import doctor
from sage_edge.clock import SystemClock
from sage_edge.config import VERSION, Settings, load_settings
from sage_edge.errors import ConfigError, EngineError, ParameterError, SageError
from sage_edge.evaluation import evaluate, find_labelled, time_slots
from sage_edge.frames import decode_image, mask_png, overlay_png
from sage_edge.orchestrator import HRM, Budget, Result, open_hrm
from sage_edge.telemetry import TelemetryValidator, load_schema, tail, validate_file

#: Exit codes: 0 done, 1 the input was at fault, 2 the command could not start.
EXIT_INPUT, EXIT_START = 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ConfigError, EngineError) as exc:
        print(f"sage-edge: {exc}", file=sys.stderr)
        return EXIT_START
    except SageError as exc:
        print(f"sage-edge: {exc}", file=sys.stderr)
        return EXIT_INPUT
    except BrokenPipeError:  # `| head` has seen enough; nothing more can be written at the exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as exc:
        print(f"sage-edge: {_describe(exc)}", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        return 130


def _describe(exc: OSError | SageError, path: Path | None = None) -> str:
    """An error in one line that names its file."""
    if isinstance(exc, OSError):
        return f"{exc.filename or path}: {exc.strerror or exc}"
    return f"{path}: {exc}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sage-edge", description="An anytime inference server.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, text: str, run: Callable[[Any], int], within: Any = commands
    ) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = within.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    _add_settings(command("serve", "Serve over HTTP until SIGINT or SIGTERM.", _serve))
    _add_refine(command("refine", "Refine image files; writes masks and overlays.", _refine))
    _add_evaluate(command("evaluate", "Measure a model on labelled frames.", _evaluate))
    telemetry = commands.add_parser("telemetry", help="Read telemetry files.").add_subparsers(required=True)
    shown = command("tail", "Print the last records of a file.", _tail, telemetry)
    shown.add_argument("file", type=Path)
    shown.add_argument("-n", "--lines", type=_count, default=10, help="how many (default 10)")
    shown.add_argument("-f", "--follow", action="store_true", help="go on with new ones")
    checked = command("validate", "Check every record of a file against the schema.", _validate, telemetry)
    checked.add_argument("file", type=Path)
    _add_settings(command("doctor", "Say what is installed, what is used, and what to do.", _doctor))
    return parser


def _count(text: str) -> int:
    """A number of things; a ValueError is argparse's word for a usage error."""
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {count}")
    return count


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Every setting as a flag."""
    parser.add_argument("--config", type=Path, help="a TOML file of settings (or SAGE_CONFIG)")
    for entry in fields(Settings):
        shown = ",".join(entry.default) if isinstance(entry.default, tuple) else entry.default
        parser.add_argument(
            f"--{entry.name.replace('_', '-')}",
            metavar=type(entry.default).__name__.upper(),
            help=f"{entry.metadata['help']} (default {shown!r})",
        )


def _add_refine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plugin", choices=["vision"])
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--out", type=Path, default=Path("var/refined"), help="folder of the results")
    for entry in fields(Budget):
        kind = int if entry.name == "max_steps" else float
        parser.add_argument(f"--{entry.name.replace('_', '-')}", dest=f"budget_{entry.name}", type=kind)
    _add_settings(parser)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plugin", choices=["vision"])
    parser.add_argument("--data", type=Path, required=True, help="folder with SPLIT/ and SPLITannot/")
    parser.add_argument("--split", required=True)
    parser.add_argument("--model", dest="vision_model", help="the same as --vision-model")
    parser.add_argument("--void", type=int, help="label of pixels that do not count; default: the model's")
    parser.add_argument("--json", type=Path, help="write the whole report there")
    _add_settings(parser)


def _settings(options: argparse.Namespace) -> Settings:
    flags = {entry.name: getattr(options, entry.name) for entry in fields(Settings)}
    settings = load_settings(flags, file=options.config)
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    return settings


def _serve(options: argparse.Namespace) -> int:
    from sage_edge.service import serve  # FastAPI takes half a second that the other commands need not wait

    serve(_settings(options))
    return 0


def _refine(options: argparse.Namespace) -> int:
    settings = replace(_settings(options), telemetry_dir="")
    budget = Budget(**{entry.name: getattr(options, f"budget_{entry.name}") for entry in fields(Budget)})
    _refuse_twins(options.images)
    options.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with closing(open_hrm(settings)) as hrm:
        files = tqdm(options.images, unit="frame", disable=len(options.images) < 2)
        for path in files:
            try:
                files.write(_refine_file(hrm, path, budget, options.out, settings.max_frame_pixels))
            except (SageError, OSError) as exc:
                files.write(f"sage-edge: {_describe(exc, path)}", file=sys.stderr)
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


def _evaluate(options: argparse.Namespace) -> int:
    settings = replace(_settings(options), telemetry_dir="")
    frames = find_labelled(options.data, options.split)
    if options.json:
        options.json.touch()  # better refused now than after an hour of work
    with closing(open_hrm(settings)) as hrm:
        report = evaluate(hrm, frames, void=options.void)
    report["split"] = options.split
    report["time"] = time_slots(settings, frames)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    out = sys.stdout
    out.write(f"{report['model']} on {options.split}: {report['frames']} frames, {report['backend']}\n")
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
    return 0


def _tail(options: argparse.Namespace) -> int:
    for line in tail(options.file, limit=options.lines, follow=options.follow, clock=SystemClock()):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


def _validate(options: argparse.Namespace) -> int:
    report = validate_file(options.file, TelemetryValidator(load_schema()))
    for number, message in report.invalid[:20]:
        sys.stdout.write(f"{options.file}:{number}: {message}\n")
    bad = len({number for number, _ in report.invalid})
    sys.stdout.write(f"{report.records} records, {bad} invalid\n")
    return EXIT_INPUT if bad else 0


def _doctor(options: argparse.Namespace) -> int:
    lines, ok = doctor.examine(_settings(options))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if ok else EXIT_INPUT
