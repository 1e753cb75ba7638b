"""What ``sage-edge engines`` does: build plans ahead of time, list them, and say which of them fit here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sage_edge.clock import Clock, SystemClock
from sage_edge.commands.options import (
    EXIT_INPUT,
    EXIT_START,
    Commands,
    add_command,
    add_group,
    add_settings,
    settings_of,
)
from sage_edge.config import Settings
from sage_edge.errors import EngineError
from sage_edge.irp.recipe import plan_name
from sage_edge.plugins import wanted_recipes
from sage_edge.runtime.backend import open_backend
from sage_edge.runtime.building import BuildState, PlanBuilder, Progress
from sage_edge.runtime.plans import PlanStore, Verdict

#: One plan as JSON: name, state, why; and, where its sidecar can be read, key, size, age and build time.
Row = dict[str, Any]
#: Seconds between two looks at a build.
_LOOK_S = 0.2


def add_parser(commands: Commands) -> None:
    """Add the three commands."""
    within = add_group(commands, "engines", "TensorRT plans, built ahead of time.")
    for name, text, run in (
        ("build", "Build every plan that is missing or does not fit this machine.", run_build),
        ("list", "List the plans that are there.", run_list),
        ("verify", "Recompute checksums and say which plans fit this machine.", run_verify),
    ):
        added = add_command(within, name, text, run)
        added.add_argument("--json", action="store_true", help="print JSON")
        add_settings(added)


def run_build(options: argparse.Namespace) -> int:
    """Build, showing how far it is."""
    settings, clock = for_building(settings_of(options)), SystemClock()
    builder = builder_of(settings)
    with tqdm(total=1.0, bar_format="{percentage:3.0f}% |{bar:20}| {desc}", file=sys.stderr) as bar:

        def show(progress: Progress) -> None:
            bar.set_description_str(progress.describe())
            bar.update(progress.fraction - bar.n)

        rows = build(settings, builder, clock, show)
    _print_plans(rows, as_json=options.json)
    return 0


def run_list(options: argparse.Namespace) -> int:
    """Print what is in the folder."""
    store = PlanStore(Path(settings_of(options).engine_dir))
    _print_plans(list_plans(store, SystemClock()), as_json=options.json)
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """Print which plans fit this machine; without TensorRT, which files are whole."""
    settings = for_building(settings_of(options))
    builder = None
    try:
        builder = builder_of(settings)
    except EngineError as exc:
        print(f"sage-edge: checksums alone are compared, no plan can be said to fit: {exc}", file=sys.stderr)
    rows = verify(settings, PlanStore(Path(settings.engine_dir)), builder, SystemClock())
    _print_plans(rows, as_json=options.json)
    if any(row["state"] not in ("ready", "whole") for row in rows):
        return EXIT_INPUT
    return 0 if builder else EXIT_START


def _print_plans(rows: list[Row], *, as_json: bool) -> None:
    sys.stdout.write((json.dumps(rows, indent=2) if as_json else as_table(rows)) + "\n")


def for_building(settings: Settings) -> Settings:
    """The settings with a backend that builds plans: TensorRT in place of the CPU."""
    return replace(settings, backend="tensorrt") if settings.backend == "cpu" else settings


def builder_of(settings: Settings) -> PlanBuilder:
    """What builds the plans of the settings' backend on this machine.

    Raises:
        EngineError: The backend is not here, or builds none.
    """
    builder = open_backend(settings).builder
    if builder is None:
        raise EngineError(
            f"backend {settings.backend}: opens networks as they are; there is nothing to build"
        )
    return builder


def build(
    settings: Settings, builder: PlanBuilder, clock: Clock, show: Callable[[Progress], None]
) -> list[Row]:
    """Build every plan of the settings that does not fit yet; returns all of them.

    The work is done on a thread of its own, so that Ctrl-C is ours and not TensorRT's.

    Args:
        settings: Name the plugins, models, precision and slots.
        builder: Builds for this machine.
        clock: For progress and ages.
        show: Told about the progress some times a second.

    Raises:
        EngineError: A plan cannot be built, or the folder cannot be written to.
    """
    recipes, state = wanted_recipes(settings), BuildState(clock)
    with ThreadPoolExecutor(1, thread_name_prefix="build") as background:
        work = background.submit(builder.build, recipes, state)
        try:
            while wait([work], _LOOK_S).not_done:
                show(state.snapshot())
        except KeyboardInterrupt:
            state.cancel()
            raise
    show(state.snapshot())
    built = {name: Verdict("ready", "built") for name in work.result()}
    return _rows(builder.store, builder.verdicts(recipes) | built, clock)


def list_plans(store: PlanStore, clock: Clock) -> list[Row]:
    """Every plan in the folder, and whether its files are whole; needs neither TensorRT nor a GPU."""
    return _rows(store, {name: store.judge(name, None) for name in store.names()}, clock)


def verify(settings: Settings, store: PlanStore, builder: PlanBuilder | None, clock: Clock) -> list[Row]:
    """Recompute the checksum of every plan that the settings want, and say whether it fits this machine.

    Args:
        settings: Name the plugins, models, precision and slots.
        store: The folder of plans.
        builder: Knows the machine; None checks the files alone.
        clock: For ages.
    """
    recipes = wanted_recipes(settings)
    if builder is not None:
        return _rows(store, builder.verdicts(recipes), clock)
    names = [plan_name(recipe, width) for recipe in recipes for width in recipe.widths]
    return _rows(store, {name: store.judge(name, None) for name in names}, clock)


def _rows(store: PlanStore, verdicts: Mapping[str, Verdict], clock: Clock) -> list[Row]:
    return [
        {"name": name, "state": state, "why": why} | _recorded(store, name, clock)
        for name, (state, why) in verdicts.items()
    ]


def _recorded(store: PlanStore, name: str, clock: Clock) -> Row:
    try:
        sidecar = store.sidecar(name)
    except (OSError, ValueError):
        return {}
    return {
        "digest": sidecar.key.digest,
        **asdict(sidecar.key),
        "size_bytes": sidecar.size_bytes,
        "age_s": clock.unix_ns() // 10**9 - sidecar.built_unix_s,
        "build_s": sidecar.build_s,
    }


def as_table(rows: Sequence[Row]) -> str:
    """Rows for people."""
    lines = [f"{'plan':<28} {'state':<8} {'key':<12} {'MiB':>7} {'age':>6}  {'built with':<18} why"]
    for row in rows:
        key, size, age, machine = "", "", "", ""
        if "digest" in row:
            key, size = row["digest"][:12], f"{row['size_bytes'] / 2**20:.2f}"
            age, machine = _age(row["age_s"]), f"{row['tensorrt']} sm {row['sm']}"
        lines.append(
            f"{row['name']:<28} {row['state']:<8} {key:<12} {size:>7} {age:>6}  {machine:<18} {row['why']}"
        )
    return "\n".join(lines)


def _age(age_s: int) -> str:
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if age_s >= seconds:
            return f"{age_s // seconds} {unit}"
    return f"{age_s} s"
