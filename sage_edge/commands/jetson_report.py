"""One command on a board, one report for an issue: what is there, is it right, how fast, at what cost.

Power modes are switched only when that is asked for, and back again. Runs on any machine; what a machine does
not have is null in the report.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sage_edge.clock import Clock, SystemClock
from sage_edge.commands import doctor
from sage_edge.commands.options import EXIT_INPUT, Commands, add_command, add_settings, settings_of
from sage_edge.commands.power_modes import PowerModes, visit
from sage_edge.config import VERSION, Settings
from sage_edge.errors import SageError
from sage_edge.orchestrator import HRM, Budget, Result, open_hrm
from sage_edge.plugins.vision import VisionPlugin
from sage_edge.runtime import precision_of
from sage_edge.telemetry.board import resident_bytes

Section: TypeAlias = dict[str, Any]

#: Of the energies: one in a thousand for other kernels in FP32, more for FP16's 11 bits over some layers.
TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2}
GOLDEN_STEPS = (0, 2, 4)
#: Growth over the second half of the soak that is no leak.
_GROWTH_MIB = 16.0


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "jetson-report", "Examine this machine under load; write a report.", run)
    parser.add_argument("--out", type=Path, default=Path("var/jetson-report"), help="folder of the report")
    parser.add_argument("--soak-minutes", type=float, default=10.0, help="how long to refine at full load")
    parser.add_argument(
        "--power-modes", action="store_true", help="measure in every power mode of the board; as root"
    )
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Examine this machine, and write the report; fails where a section found a fault."""
    settings = replace(settings_of(options), telemetry_dir="")
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


def make_report(
    settings: Settings,
    *,
    soak_s: float,
    idle_s: float,
    clock: Clock,
    modes: PowerModes | None = None,
    mode_s: float = 0.0,
) -> Section:
    """Examine this machine.

    Args:
        settings: Those that would serve.
        soak_s: How long to refine at full load.
        idle_s: How long to do nothing before, to know what idling takes.
        clock: The time.
        modes: The board's power modes; None for this machine's.
        mode_s: How long to refine at full load in each of them; 0 to stay in the one that is in force.

    Returns:
        A JSON document. ``sections`` holds what was found; ``ok`` is False where a section found a fault,
        None where it had nothing to look at.
    """
    sections: dict[str, Section] = {"doctor": _doctor(settings)}
    with closing(open_hrm(settings, clock)) as hrm:
        work: dict[str, Callable[[], Section]] = {
            "board": lambda: _board(hrm),
            "engines": lambda: {"ok": hrm.is_serving, "plugins": hrm.status()},
            "golden": lambda: _golden(hrm),
            "power_modes": lambda: _power_modes(hrm, modes or PowerModes(), mode_s, idle_s, clock),
            "soak": lambda: _soak(hrm, soak_s=soak_s, idle_s=idle_s, clock=clock),
        }
        for name, look in work.items():
            try:
                sections[name] = look()
            except SageError as exc:
                sections[name] = {"ok": False, "error": f"{exc.code}: {exc}"}
    return {
        "report": "sage-edge jetson-report",
        "version": VERSION,
        "made_unix_ns": clock.unix_ns(),
        "settings": asdict(settings),
        "ok": all(section["ok"] is not False for section in sections.values()),
        "sections": sections,
    }


def write_report(report: Section, folder: Path) -> list[Path]:
    """Write ``report.json`` and ``report.md``; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "report.json", folder / "report.md"]
    written[0].write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    written[1].write_text(to_page(report), encoding="utf-8")
    return written


def to_page(report: Section) -> str:
    """The report for people, as Markdown."""
    lines = [f"# {report['report']}, version {report['version']}: {_verdict(report['ok'])}"]
    for name, section in report["sections"].items():
        lines += ["", f"## {name}: {_verdict(section['ok'])}", "", "| what | found |", "|---|---|"]
        lines += [f"| {key} | {_cell(value)} |" for key, value in section.items() if key != "ok"]
    return "\n".join(lines) + "\n"


def golden_frame() -> NDArray[np.uint8]:
    """A frame by formula, the same anywhere: uint8 [256, 256, 3], bright discs on grey."""
    y, x = np.mgrid[0:256, 0:256].astype(np.float64)
    light = np.zeros((256, 256))
    for number in range(12):
        centre_y, centre_x, radius = 37 + 59 * number % 190, 29 + 83 * number % 200, 9 + number % 5
        light += np.clip(radius - np.hypot(y - centre_y, x - centre_x) + 1, 0, 1)
    return np.repeat((np.clip(light, 0, 1) * 170 + 20)[..., None], 3, axis=2).astype(np.uint8)


def golden_results(hrm: HRM) -> Section:
    """What the vision plugin makes of the golden frame: energies by steps, and the share of each class."""
    prepared = hrm.prepare("vision", golden_frame())
    results = {steps: _refine(hrm, prepared, Budget(max_steps=steps, eps=0.0)) for steps in GOLDEN_STEPS}
    answer = results[GOLDEN_STEPS[-1]].answer
    counts = np.bincount(answer.array.ravel(), minlength=len(answer.classes))
    return {
        "E": {str(steps): result.run.best_E for steps, result in results.items()},
        "shares": dict(zip(answer.classes, (counts / answer.array.size).tolist(), strict=True)),
    }


def _doctor(settings: Settings) -> Section:
    lines, ok = doctor.examine(settings)
    return {"ok": ok, "lines": lines}


def _board(hrm: HRM) -> Section:
    sampler = hrm.telemetry.board
    sample = sampler.newest if sampler else None
    if sampler is None or sample is None:
        return {"ok": None, "why": "board_period_s is 0: the board's sensors are switched off"}
    meter = sampler.energy
    return {
        "ok": None if sampler.board.model is None else meter is not None,
        "model": sampler.board.model,
        "l4t": sampler.board.l4t,
        "power_mode": sample.power_mode,
        "energy": {"source": meter.source, "covers": meter.covers} if meter else None,
        "power_w": None if sample.power_mw is None else sample.power_mw / 1000,
        "rails_w": {name: power_mw / 1000 for (name, _), power_mw in sample.rails_mw.items()},
        "temperatures_c": dict(sample.temperatures_c),
        "gpu_load": sample.gpu_load,
        "gpu_frequency_hz": sample.gpu_frequency_hz,
        "memory_bytes": sample.memory_bytes,
        "memory_available_bytes": sample.memory_available_bytes,
        "throttled": sample.throttled,
    }


def _golden(hrm: HRM) -> Section:
    """Compare with the results that ship beside the model."""
    plugin = hrm.plugins.get("vision")
    if not isinstance(plugin, VisionPlugin) or not (file := plugin.folder / "golden.json").is_file():
        return {"ok": None, "why": "no vision plugin, or a model without golden.json"}
    expected, found = json.loads(file.read_text(encoding="utf-8")), golden_results(hrm)
    if plugin.model_sha256 not in expected["model_sha256"]:
        return {
            "ok": False,
            "why": "golden.json is of another model: write it anew with engines.vision.golden",
        }
    tolerance = TOLERANCES[precision_of(hrm.settings)]
    off = {steps: abs(found["E"][steps] - E) / abs(E) for steps, E in expected["E"].items()}
    moved = max(abs(found["shares"][name] - share) for name, share in expected["shares"].items())
    return {
        "ok": max(off.values()) <= tolerance and moved <= tolerance,
        "tolerance": tolerance,
        "E": found["E"],
        "E_expected": expected["E"],
        "E_relative_difference": off,
        "largest_share_difference": moved,
    }


def _power_modes(hrm: HRM, modes: PowerModes, mode_s: float, settle_s: float, clock: Clock) -> Section:
    """What an answer costs in each mode; the soak says it of the one in force."""
    if not modes.names:
        return {"ok": None, "why": "no nvpmodel here: no power modes"}
    if "vision" not in hrm.plugins:
        return {"ok": None, "why": "no vision plugin, whose frames would be refined"}
    number = modes.in_force
    in_force = {"in_force": None if number is None else modes.names.get(number, str(number))}
    if not mode_s:
        others = {name: {"not_allowed": "--power-modes was not given"} for name in modes.names.values()}
        return {
            "ok": None,
            **in_force,
            **{name: why for name, why in others.items() if name != in_force["in_force"]},
        }
    found = visit(
        modes, measure=lambda: _at_full_load(hrm, mode_s, clock), settle=lambda: clock.sleep(settle_s)
    )
    return {"ok": True, **in_force, **found}


def _at_full_load(hrm: HRM, duration_s: float, clock: Clock) -> Section:
    """Answers per second, times and energy with every slot busy."""
    sampler = hrm.telemetry.board
    meter = sampler.energy if sampler else None
    load = _Load(hrm, clock)
    from_ns, from_uj = clock.monotonic_ns(), meter.energy_uj() if meter else None
    load.run(duration_s)
    took_s, to_uj = (clock.monotonic_ns() - from_ns) / 1e9, meter.energy_uj() if meter else None
    joules = None if from_uj is None or to_uj is None else (to_uj - from_uj) / 1e6
    return {
        "answers_per_s": load.answers / took_s,
        "p50_ms": load.percentile_ms(50),
        "p99_ms": load.percentile_ms(99),
        "power_w": None if joules is None else joules / took_s,
        "energy_per_answer_mj": None if joules is None else 1000 * joules / load.answers,
        "hottest_c": load.hottest_c,
        "throttled_looks": load.throttled_looks,
    }


def _soak(hrm: HRM, *, soak_s: float, idle_s: float, clock: Clock) -> Section:
    """Refine one frame over and over with every slot busy."""
    name = next(iter(hrm.plugins))
    if name != "vision":
        return {"ok": None, "why": f"the first plugin is {name}; the soak refines frames with vision"}
    sampler = hrm.telemetry.board
    meter = sampler.energy if sampler else None
    idle_from_uj = meter.energy_uj() if meter else None
    clock.sleep(idle_s)
    from_uj = meter.energy_uj() if meter else None
    load = _Load(hrm, clock)
    load.run(soak_s / 2)
    half_mib = resident_bytes() / 2**20
    load.run(soak_s / 2)
    grown_mib = resident_bytes() / 2**20 - half_mib
    to_uj = meter.energy_uj() if meter else None
    lost = sum(count for kind, count in hrm.telemetry.status().items() if kind.startswith("lost"))
    joules = None if from_uj is None or to_uj is None else (to_uj - from_uj) / 1e6
    idle_w = None if idle_from_uj is None or from_uj is None else (from_uj - idle_from_uj) / 1e6 / idle_s
    return {
        "ok": lost == 0 and grown_mib < _GROWTH_MIB and load.answers > 0,
        "seconds": soak_s,
        "answers": load.answers,
        "answers_per_s": load.answers / soak_s,
        "steps_per_answer": load.steps / max(1, load.answers),
        "p50_ms": load.percentile_ms(50),
        "p99_ms": load.percentile_ms(99),
        "idle_w": idle_w,
        "energy_per_answer_mj": None if joules is None else 1000 * joules / max(1, load.answers),
        "hottest_c": load.hottest_c,
        "throttled_looks": load.throttled_looks,
        "records_lost": lost,
        "resident_mib": half_mib + grown_mib,
        "grown_in_second_half_mib": grown_mib,
    }


class _Load:
    """Keeps twice as many requests in flight as there are slots, and looks at the board after each answer."""

    def __init__(self, hrm: HRM, clock: Clock) -> None:
        self._hrm = hrm
        self._clock = clock
        self._prepared = hrm.prepare("vision", golden_frame())
        self._times_ms: deque[float] = deque(maxlen=100_000)
        self.answers = self.steps = self.throttled_looks = 0
        self.hottest_c: float | None = None

    def run(self, duration_s: float) -> None:
        """Refine for so long, and finish what was begun."""
        end_ns = self._clock.monotonic_ns() + int(duration_s * 1e9)
        in_flight = deque([self._submit() for _ in range(2 * self._hrm.settings.slots)])
        while in_flight:
            self._count(in_flight.popleft().future.result())
            if self._clock.monotonic_ns() < end_ns:
                in_flight.append(self._submit())

    def percentile_ms(self, percent: float) -> float | None:
        """Of the time from arrival to answer."""
        return float(np.percentile(self._times_ms, percent)) if self._times_ms else None

    def _submit(self) -> Any:
        return self._hrm.submit("vision", self._prepared)

    def _count(self, result: Result) -> None:
        self.answers += 1
        self.steps += result.run.step_idx
        self._times_ms.append(result.queue_ms + result.refine_ms)
        sampler = self._hrm.telemetry.board
        sample = sampler.newest if sampler else None
        if sample and sample.temp_c is not None:
            self.hottest_c = max(sample.temp_c, self.hottest_c or sample.temp_c)
        self.throttled_looks += bool(sample and sample.throttled)


def _refine(hrm: HRM, prepared: Any, budget: Budget) -> Result:
    result: Result = hrm.submit("vision", prepared, budget).future.result()
    return result


def _verdict(ok: bool | None) -> str:
    return {True: "ok", False: "NOT ok", None: "nothing to look at"}[ok]


def _cell(value: Any) -> str:
    """A value in one cell of a table."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_cell(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list):
        return "<br>".join(str(line) for line in value)
    if value is None:
        return "not known"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
