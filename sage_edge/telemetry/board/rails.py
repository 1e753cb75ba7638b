"""Power rails from hwmon: INA3221 on Orin, INA238 on Thor."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from sage_edge.telemetry.board.files import numbered, read_int, read_text

#: Rails that together are the whole, and what it covers; the first that is there completely counts.
#: VDD_IN feeds the other rails of Orin Nano and NX, VIN_SYS_5V0 feeds VDDQ_VDD2_1V8AO of AGX Orin:
#: those are not added again.
WHOLES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("VIN",), "board"),
    (("VDD_IN",), "module"),
    (("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), "module"),
)
#: What the device tree calls a channel that is not connected.
_UNCONNECTED = ("", "NC")


@dataclass(frozen=True, slots=True)
class Rail:
    """A measured supply: its name, the chip that measures it, and how to read it in milliwatts."""

    name: str
    source: str
    power_mw: Callable[[], float | None]


def find_rails(root: Path) -> list[Rail]:
    """The rails of a board, by chip and channel."""
    rails = []
    for chip in numbered(root / "sys/class/hwmon", "hwmon"):
        source = read_text(chip / "name")
        if source == "ina3221":
            rails += [_ina3221(chip, channel) for channel in (1, 2, 3) if _is_connected(chip, channel)]
        elif source == "ina238":  # a chip of one channel; Thor has one, on the input of the carrier board
            rails.append(_ina238(chip))
    return rails


def whole_of(names: Collection[str]) -> tuple[tuple[str, ...], str] | None:
    """Which of these rails are the whole, and whether that is the ``module`` or the ``board``."""
    return next(((parts, covers) for parts, covers in WHOLES if set(parts) <= set(names)), None)


def _is_connected(chip: Path, channel: int) -> bool:
    is_enabled = read_int(chip / f"in{channel}_enable") != 0
    return is_enabled and (read_text(chip / f"in{channel}_label") or "") not in _UNCONNECTED


def _ina3221(chip: Path, channel: int) -> Rail:
    name = read_text(chip / f"in{channel}_label") or ""
    voltage, current = chip / f"in{channel}_input", chip / f"curr{channel}_input"

    def power_mw() -> float | None:
        mv, ma = read_int(voltage), read_int(current)
        return None if mv is None or ma is None else mv * ma / 1000

    return Rail(name, "ina3221", power_mw)


def _ina238(chip: Path) -> Rail:
    power = chip / "power1_input"

    def power_mw() -> float | None:
        uw = read_int(power)
        return None if uw is None else uw / 1000

    return Rail(read_text(chip / "label") or "VIN", "ina238", power_mw)
