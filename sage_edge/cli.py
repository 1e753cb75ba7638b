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

from sage_edge import doctor, engines
from sage_edge.calibration import calibrate
from sage_edge.clock import SystemClock
from sage_edge.config import VERSION, Settings, describe_settings, load_settings
from sage_edge.errors import ConfigError, EngineError, ParameterError, SageError
from sage_edge.evaluation import evaluate, find_labelled, time_slots
from sage_edge.frames import decode_image, mask_png, overlay_png
from sage_edge.jetson_report import make_report, write_report
from sage_edge.keys import add_key
from sage_edge.orchestrator import HRM, Budget, Result, open_hrm
from sage_edge.plugins import load_plugin
from sage_edge.runtime.building import Progress
from sage_edge.runtime.plans import PlanStore
from sage_edge.runtime.tensorrt import TensorRTBackend
from sage_edge.telemetry import TelemetryValidator, load_schema, tail, validate_file
from sage_edge.telemetry.audit import verify
from sage_edge.telemetry.board import Board, BoardSampler

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
    _add_engines(command, commands)
    audit = commands.add_parser("audit", help="Prove what happened.").add_subparsers(required=True)
    verified = command("verify", "Verify journals: chain, signatures, budgets and trust.", _verify, audit)
    verified.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a telemetry folder, or its file"
    )
    verified.add_argument("--public-key", type=Path, metavar="FILE", help="the key that must have signed")
    verified.add_argument("--json", action="store_true", help="print the reports as JSON")
    _add_jetson_report(
        command("jetson-report", "Examine this machine under load; write a report.", _jetson_report)
    )
    _add_settings(command("config", "Print the settings in effect, each with its origin.", _config))
    keys = commands.add_parser("keys", help="API keys.").add_subparsers(required=True)
    added = command("add", "Make an API key and print it, this once.", _add_key, keys)
    added.add_argument("name", help="whose key it is, as it stands in the log")
    _add_settings(added)
    measured = command("calibrate", "Measure what a step of each plugin takes and costs.", _calibrate)
    measured.add_argument("--out", type=Path, default=Path("var/prices.json"), help="for prices_file")
    measured.add_argument("--seconds", type=float, default=5.0, help="how long each plugin is measured")
    _add_settings(measured)
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


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    return {entry.name: getattr(options, entry.name) for entry in fields(Settings)}


def _add_engines(command: Callable[..., argparse.ArgumentParser], commands: Any) -> None:
    within = commands.add_parser("engines", help="TensorRT plans, built ahead of time.").add_subparsers(
        required=True
    )
    for name, text, run in (
        ("build", "Build every plan that is missing or does not fit this machine.", _engines_build),
        ("list", "List the plans that are there.", _engines_list),
        ("verify", "Recompute checksums and say which plans fit this machine.", _engines_verify),
    ):
        added = command(name, text, run, within)
        added.add_argument("--json", action="store_true", help="print JSON")
        _add_settings(added)


def _add_jetson_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("var/jetson-report"), help="folder of the report")
    parser.add_argument("--soak-minutes", type=float, default=10.0, help="how long to refine at full load")
    parser.add_argument(
        "--power-modes", action="store_true", help="measure in every power mode of the board; as root"
    )
    _add_settings(parser)


def _settings(options: argparse.Namespace) -> Settings:
    settings = load_settings(_flags(options), file=options.config)
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


def _verify(options: argparse.Namespace) -> int:
    validator = TelemetryValidator(load_schema())
    reports = [verify(path, validator=validator, public_key=options.public_key) for path in options.paths]
    if options.json:
        documents = [report.document() for report in reports]
        sys.stdout.write(json.dumps(documents, indent=2, allow_nan=False) + "\n")
    else:
        sys.stdout.writelines(line + "\n" for report in reports for line in report.lines())
    return 0 if all(report.is_sound for report in reports) else EXIT_INPUT


def _config(options: argparse.Namespace) -> int:
    sys.stdout.write(describe_settings(_flags(options), file=options.config))
    return 0


def _add_key(options: argparse.Namespace) -> int:
    settings = _settings(options)
    if not settings.api_keys_file:
        raise ConfigError("api_keys_file: say which file with --api-keys-file or SAGE_API_KEYS_FILE")
    sys.stdout.write(add_key(Path(settings.api_keys_file), options.name) + "\n")
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    settings, clock = _settings(options), SystemClock()
    board = BoardSampler(Board(), period_s=settings.board_period_s or 1.0, clock=clock)
    plugins = {name: load_plugin(name, settings) for name in settings.plugins}
    document = calibrate(plugins, settings, seconds=options.seconds, clock=clock, board=board)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for name, entry in document["plugins"].items():
        sys.stdout.write(
            f"{name}: first state {_span(entry, 'start')}, step {_span(entry, 'step')}, "
            f"{entry['power_w']:.3g} W ({entry['source']})\n"
        )
    sys.stdout.write(f"written to {options.out}; serve with --prices-file {options.out}\n")
    return 0


def _span(entry: dict[str, Any], name: str) -> str:
    ms, atp = entry[f"{name}_ms"], entry[f"{name}_atp"]
    return f"{ms['mean']:.3g} ms ({ms['p10']:.3g} to {ms['p90']:.3g}) = {atp['mean']:.3g} ATP"


def _engines_build(options: argparse.Namespace) -> int:
    settings, clock = _settings(options), SystemClock()
    builder = TensorRTBackend.from_settings(settings).builder
    with tqdm(total=1.0, bar_format="{percentage:3.0f}% |{bar:20}| {desc}", file=sys.stderr) as bar:

        def show(progress: Progress) -> None:
            bar.set_description_str(progress.describe())
            bar.update(progress.fraction - bar.n)

        rows = engines.build(settings, builder, clock, show)
    _print_plans(rows, as_json=options.json)
    return 0


def _engines_list(options: argparse.Namespace) -> int:
    store = PlanStore(Path(_settings(options).engine_dir))
    _print_plans(engines.list_plans(store, SystemClock()), as_json=options.json)
    return 0


def _engines_verify(options: argparse.Namespace) -> int:
    settings = _settings(options)
    builder = None
    try:
        builder = TensorRTBackend.from_settings(settings).builder
    except EngineError as exc:
        print(f"sage-edge: checksums alone are compared, no plan can be said to fit: {exc}", file=sys.stderr)
    rows = engines.verify(settings, PlanStore(Path(settings.engine_dir)), builder, SystemClock())
    _print_plans(rows, as_json=options.json)
    if any(row["state"] not in ("ready", "whole") for row in rows):
        return EXIT_INPUT
    return 0 if builder else EXIT_START


def _print_plans(rows: list[engines.Row], *, as_json: bool) -> None:
    sys.stdout.write((json.dumps(rows, indent=2) if as_json else engines.as_table(rows)) + "\n")


def _jetson_report(options: argparse.Namespace) -> int:
    settings = replace(_settings(options), telemetry_dir="")
    soak_s = 60 * options.soak_minutes
    report = make_report(
        settings,
        soak_s=soak_s,
        idle_s=min(10.0, soak_s),
        clock=SystemClock(),
        mode_s=min(60.0, soak_s) if options.power_modes else 0.0,
    )
    for path in write_report(report, options.out):
        sys.stdout.write(f"{path}\n")
    return 0 if report["ok"] else EXIT_INPUT


def _doctor(options: argparse.Namespace) -> int:
    lines, ok = doctor.examine(_settings(options))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if ok else EXIT_INPUT
