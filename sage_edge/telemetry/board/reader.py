"""What a board says about itself in /sys, /proc and /etc: rails, heat, load, memory, power mode."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sage_edge.telemetry.board.files import numbered, read_int, read_text
from sage_edge.telemetry.board.memory import meminfo
from sage_edge.telemetry.board.power_mode import mode_name
from sage_edge.telemetry.board.rails import find_rails, whole_of

#: A zone that is switched off reports -256 degrees.
_COLDEST_C = -100.0
#: Devices that cool by slowing something down; the others are fans, and alerts that slow nothing.
_SLOWS_DOWN = re.compile(r"throttle|cpufreq|devfreq|processor|powerclamp", re.IGNORECASE)
_GPU = re.compile(r"gpu|g[ampv]\d\db")


@dataclass(frozen=True, slots=True)
class BoardSample:
    """One look at a board; whatever it does not tell is absent: None, or not among the keys.

    Attributes:
        rails_mw: Milliwatts by rail and chip, such as ``("VDD_IN", "ina3221")``.
        temperatures_c: Degrees Celsius by thermal zone.
        gpu_load: Share of time that the GPU was busy, in [0, 1].
        gpu_frequency_hz: Clock of the GPU.
        memory_bytes, memory_available_bytes: In all, and to be had without swapping.
        swap_bytes, swap_free_bytes: In all, and unused.
        power_mode: Name of the nvpmodel mode, such as ``15W``.
        over_current_events: Since boot.
        throttled: Whether something is slowed down against heat, or was by an over-current event since the
            sample before.
    """

    rails_mw: Mapping[tuple[str, str], float]
    temperatures_c: Mapping[str, float]
    gpu_load: float | None
    gpu_frequency_hz: int | None
    memory_bytes: int | None
    memory_available_bytes: int | None
    swap_bytes: int | None
    swap_free_bytes: int | None
    power_mode: str | None
    over_current_events: int | None
    throttled: bool | None

    @property
    def power_mw(self) -> float | None:
        """Power of the whole (``rails.WHOLES``); None while any part of it is unreadable."""
        by_name = {name: power for (name, _), power in self.rails_mw.items()}
        whole = whole_of(by_name)
        return sum(by_name[name] for name in whole[0]) if whole else None

    @property
    def temp_c(self) -> float | None:
        """The hottest zone."""
        return max(self.temperatures_c.values(), default=None)


class Board:
    """A board's sensors, found once and read at every ``sample``.

    Attributes:
        root: Where ``sys``, ``proc`` and ``etc`` lie.
        model: As the device tree has it, such as ``NVIDIA Jetson Orin Nano Developer Kit``.
        l4t: Release of Jetson Linux, such as ``36.4.3``.
        rails: What is measured.

    Threads: ``sample`` from one at a time.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.model = read_text(root / "proc/device-tree/model")
        self.l4t = _l4t(read_text(root / "etc/nv_tegra_release") or "")
        self.rails = find_rails(root)
        self._zones = _find_zones(root)
        self._gpu = next(
            (path for path in sorted((root / "sys/class/devfreq").glob("*")) if _GPU.search(path.name)), None
        )
        self._coolers = [
            device
            for device in numbered(root / "sys/class/thermal", "cooling_device")
            if _SLOWS_DOWN.search(read_text(device / "type") or "")
        ]
        self._over_current = sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"))
        self._events_seen: int | None = None

    def sample(self) -> BoardSample:
        """Read everything; a few milliseconds on a board, most of them on its I2C bus."""
        powers = {(rail.name, rail.source): rail.power_mw() for rail in self.rails}
        memory = meminfo(self.root)
        events = _sum(read_int(path) for path in self._over_current)
        throttled = self._is_throttled(events)
        self._events_seen = events
        return BoardSample(
            rails_mw={rail: power for rail, power in powers.items() if power is not None},
            temperatures_c=self._temperatures_c(),
            gpu_load=self._gpu_load(),
            gpu_frequency_hz=read_int(self._gpu / "cur_freq") if self._gpu else None,
            memory_bytes=memory.get("MemTotal"),
            memory_available_bytes=memory.get("MemAvailable"),
            swap_bytes=memory.get("SwapTotal"),
            swap_free_bytes=memory.get("SwapFree"),
            power_mode=mode_name(self.root),
            over_current_events=events,
            throttled=throttled,
        )

    def _temperatures_c(self) -> dict[str, float]:
        read = {name: read_int(zone / "temp") for name, zone in self._zones.items()}
        return {name: mc / 1000 for name, mc in read.items() if mc is not None and mc / 1000 > _COLDEST_C}

    def _gpu_load(self) -> float | None:
        permille = read_int(self._gpu / "device/load") if self._gpu else None
        return None if permille is None else permille / 1000

    def _is_throttled(self, events: int | None) -> bool | None:
        states = [state for cooler in self._coolers if (state := read_int(cooler / "cur_state")) is not None]
        if not states and events is None:
            return None
        has_events = events is not None and self._events_seen is not None and events > self._events_seen
        return has_events or any(state > 0 for state in states)


def _find_zones(root: Path) -> dict[str, Path]:
    """Thermal zones by type; a type that comes again gets the number of its zone."""
    zones: dict[str, Path] = {}
    for zone in numbered(root / "sys/class/thermal", "thermal_zone"):
        if name := read_text(zone / "type"):
            zones[name if name not in zones else f"{name}-{zone.name.removeprefix('thermal_zone')}"] = zone
    return zones


def _sum(values: Iterable[int | None]) -> int | None:
    """The sum of those that are there; None when none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _l4t(text: str) -> str | None:
    """The release in ``# R36 (release), REVISION: 4.3, …``."""
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{match[1]}.{match[2]}" if match else None
