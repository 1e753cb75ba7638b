"""``sage-edge calibrate``: what a first state and a step of each plugin take, in time and in energy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any, NamedTuple

from sage_edge.clock import Clock, SystemClock
from sage_edge.commands.options import Commands, add_command, add_settings, settings_of
from sage_edge.config import Settings
from sage_edge.irp import IRPPlugin
from sage_edge.native import Ring
from sage_edge.plugins import load_networks, make_plugins
from sage_edge.runtime import CpuRefiner, Job, open_slots
from sage_edge.telemetry.board import Board, BoardSampler

#: Steps of one measured refinement.
_STEPS = 8


class _Round(NamedTuple):
    start_ns: list[int]
    step_ns: list[int]


def add_parser(commands: Commands) -> None:
    """Add the command."""
    measured = add_command(commands, "calibrate", "Measure what a step of each plugin takes and costs.", run)
    measured.add_argument("--out", type=Path, default=Path("var/prices.json"), help="for prices_file")
    measured.add_argument("--seconds", type=float, default=5.0, help="how long each plugin is measured")
    add_settings(measured)


def run(options: argparse.Namespace) -> int:
    """Measure the plugins of the settings; writes the file, prints a line for each."""
    settings, clock = settings_of(options), SystemClock()
    board = BoardSampler(Board(), period_s=settings.board_period_s or 1.0, clock=clock)
    plugins = make_plugins(settings)
    load_networks(plugins, settings)
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


def calibrate(
    plugins: Mapping[str, IRPPlugin],
    settings: Settings,
    *,
    seconds: float,
    clock: Clock,
    board: BoardSampler | None,
) -> dict[str, Any]:
    """Refine each plugin's example again and again, one at a time, and see what it takes.

    Args:
        plugins: What to measure.
        settings: Threads of the engines, and the declared power.
        seconds: How long each plugin is measured.
        clock: Whose time it is.
        board: The board's energy; None prices by the declared power.

    Returns:
        The document that the setting ``prices_file`` names: for each plugin the power and its source, and
        mean, 10th and 90th percentile of the milliseconds and ATP of a first state and a step.
    """
    measured = {name: _measure(plugin, settings, seconds, clock, board) for name, plugin in plugins.items()}
    return {"unix_ns": clock.unix_ns(), "declared_w": settings.power_w, "plugins": measured}


def _measure(
    plugin: IRPPlugin, settings: Settings, seconds: float, clock: Clock, board: BoardSampler | None
) -> dict[str, Any]:
    example = plugin.example()
    states = open_slots(plugin, capacity=1, threads=settings.thread_count, history=0)
    refiner = CpuRefiner(states, lambda: example, ring=Ring(1024), plugin_number=0, now_ns=clock.monotonic_ns)
    refiner.warm_up()
    energy_uj = _reader(board)
    policy = plugin.halting.replace(eps=0.0, K=1, max_steps=_STEPS, halt_when_feasible=False)
    times = _Round([], [])
    first_ns, first_uj = clock.monotonic_ns(), energy_uj()
    run_id = 0
    while clock.monotonic_ns() - first_ns < seconds * 1e9:
        run_id += 1
        began_ns = clock.monotonic_ns()
        refiner.admit([Job(run_id, example, policy)])
        times.start_ns.append(clock.monotonic_ns() - began_ns)
        while refiner.live:
            refiner.tick()
            times.step_ns.append(refiner.last_tick_ns)
    return _describe(times, settings, board, _power(first_ns, first_uj, clock.monotonic_ns(), energy_uj()))


def _describe(
    times: _Round, settings: Settings, board: BoardSampler | None, power_w: float | None
) -> dict[str, Any]:
    watts = power_w or settings.power_w
    counter = board.energy if board else None
    spans = {"start": times.start_ns, "step": times.step_ns}
    return {
        "power_w": watts,
        "source": counter.source if counter and power_w else "declared",
        **{f"{name}_ms": _spread(ns, 1e-6) for name, ns in spans.items()},
        **{f"{name}_atp": _spread(ns, watts * 1e-6) for name, ns in spans.items()},
    }


def _spread(values: list[int], scale: float) -> dict[str, float]:
    """Mean, 10th and 90th percentile, times ``scale``."""
    deciles = quantiles(values, n=10) if len(values) > 1 else [values[0]] * 9
    return {"mean": fmean(values) * scale, "p10": deciles[0] * scale, "p90": deciles[-1] * scale}


def _reader(board: BoardSampler | None) -> Callable[[], int | None]:
    """The board's energy so far, read now."""

    def read() -> int | None:
        if board is None or board.energy is None:
            return None
        board.sample_once()
        return board.energy.energy_uj()

    return read


def _power(first_ns: int, first_uj: int | None, last_ns: int, last_uj: int | None) -> float | None:
    """Mean watts between two readings; None where one is missing or nothing was counted."""
    if first_uj is None or last_uj is None or last_uj <= first_uj or last_ns <= first_ns:
        return None
    return (last_uj - first_uj) * 1e3 / (last_ns - first_ns)
