"""Energy of the board as one number that only grows: what a price per step is measured with."""

from __future__ import annotations

import re
from pathlib import Path
from threading import Lock
from typing import Protocol

from sage_edge.clock import Clock
from sage_edge.telemetry.board.files import read_int, read_text
from sage_edge.telemetry.board.rails import whole_of
from sage_edge.telemetry.board.reader import Board, BoardSample


class EnergyCounter(Protocol):
    """What a price needs to know of a sensor.

    Attributes:
        source: Chip and rails, such as ``ina3221:VDD_IN``, or ``rapl:package-0``.
        covers: What is measured: ``board``, ``module`` or ``cpu``.
    """

    source: str
    covers: str

    def energy_uj(self) -> int | None:
        """Microjoules since some start; never falls. None while the sensor cannot be read. Any thread."""


class Meter(EnergyCounter, Protocol):
    """A counter that wants to see every sample of the board."""

    def observe(self, sample: BoardSample) -> None:
        """Take a new sample into account. One thread."""


class RailMeter:
    """Integrates the power of the rails that are the whole.

    Each sample's power is held until the next, so that the sum is continuous and a tick between two samples
    is charged too. It is held for ``stale_s`` at most; from then on, and while a part of the whole cannot be
    read, the energy is unknown and such time is left out of the sum.

    Threads: ``observe`` on one, ``energy_uj`` on any.
    """

    def __init__(self, source: str, covers: str, *, stale_s: float, clock: Clock) -> None:
        self.source = source
        self.covers = covers
        self._stale_ns = int(stale_s * 1e9)
        self._clock = clock
        self._lock = Lock()
        self._power_mw: float | None = None
        self._since_ns = 0
        self._sum_pj = 0

    def observe(self, sample: BoardSample) -> None:
        """Hold this sample's power from now on."""
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            self._sum_pj += self._held_pj(now_ns)
            self._power_mw, self._since_ns = sample.power_mw, now_ns

    def energy_uj(self) -> int | None:
        """Microjoules since the first sample."""
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            if self._power_mw is None or now_ns - self._since_ns > self._stale_ns:
                return None
            return (self._sum_pj + self._held_pj(now_ns)) // 1_000_000

    def _held_pj(self, now_ns: int) -> int:
        """Picojoules (milliwatts x nanoseconds) since the last sample; noise around 0 takes none away."""
        held_ns = min(now_ns - self._since_ns, self._stale_ns)
        return round(max(self._power_mw or 0.0, 0.0) * held_ns)


class RaplMeter:
    """Reads the energy counters of x86 processors, which start again at zero when they are full.

    Threads: any.
    """

    def __init__(self, zones: dict[str, Path]) -> None:
        """Watch these zones, by name; each must have been readable."""
        self.source = "rapl:" + "+".join(zones)
        self.covers = "board" if "psys" in zones else "cpu"
        self._zones = list(zones.values())
        self._ranges_uj = [read_int(zone / "max_energy_range_uj") or 0 for zone in self._zones]
        self._lock = Lock()
        self._last_uj = [read_int(zone / "energy_uj") for zone in self._zones]
        self._sum_uj = 0

    def observe(self, _: BoardSample) -> None:
        """Read often enough that no turn of a counter is missed: one takes minutes at least."""
        self.energy_uj()

    def energy_uj(self) -> int | None:
        """Microjoules of all zones since the construction."""
        with self._lock:
            now_uj = [read_int(zone / "energy_uj") for zone in self._zones]
            if None in now_uj:
                return None
            for last, now, range_uj in zip(self._last_uj, now_uj, self._ranges_uj, strict=True):
                self._sum_uj += _advance(last, now, range_uj)
            self._last_uj = now_uj
            return self._sum_uj


def find_meter(board: Board, *, stale_s: float, clock: Clock) -> Meter | None:
    """The best that there is: rails that are the whole, else the processor's own counters, else None."""
    sources = {rail.name: rail.source for rail in board.rails}
    if whole := whole_of(sources):
        parts, covers = whole
        return RailMeter(f"{sources[parts[0]]}:{'+'.join(parts)}", covers, stale_s=stale_s, clock=clock)
    zones = _rapl_zones(board.root)
    return RaplMeter(zones) if zones else None


def _advance(last_uj: int | None, now_uj: int | None, range_uj: int) -> int:
    """How far a counter has gone on, across at most one turn."""
    if last_uj is None or now_uj is None:
        return 0
    return now_uj - last_uj if now_uj >= last_uj else now_uj - last_uj + range_uj


def _rapl_zones(root: Path) -> dict[str, Path]:
    """The zone of the whole platform, else all packages; none where only root may read them."""
    found = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
    top = {
        read_text(zone / "name") or "": zone for zone in found if re.fullmatch(r"intel-rapl:\d+", zone.name)
    }
    zones = {name: zone for name, zone in top.items() if read_int(zone / "energy_uj") is not None}
    if "psys" in zones:
        return {"psys": zones["psys"]}
    packages = {name: zone for name, zone in zones.items() if name.startswith("package")}
    wanted = {name for name in top if name.startswith("package")}
    return packages if set(packages) == wanted else {}
