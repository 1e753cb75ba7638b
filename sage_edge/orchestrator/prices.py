"""What a microsecond of a plugin's compute costs, and how that is known."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from sage_edge.errors import ConfigError
from sage_edge.telemetry.board import EnergyCounter

#: The board's power is the mean over at least so long.
_WINDOW_NS = 500_000_000


class Price(NamedTuple):
    """Board power while a plugin computes.

    Attributes:
        power_w: Watts: 1 W x 1 ms is 1 ATP.
        source: ``declared``, the name of a sensor, or ``calibrated:`` before either.
    """

    power_w: float
    source: str


class Prices:
    """The price of each plugin: calibrated if it was, else by the board's sensor, else as declared.

    A sensor's price is the board's mean power over the last half second or more; while it cannot be read,
    the declared one counts and the records say so.

    Threads: ``of`` from any.
    """

    def __init__(
        self,
        declared_w: float,
        *,
        calibrated: Mapping[str, Price] | None = None,
        counter: EnergyCounter | None = None,
        now_ns: Callable[[], int],
    ) -> None:
        self._declared = Price(declared_w, "declared")
        self._calibrated = dict(calibrated or {})
        self._counter = counter
        self._now_ns = now_ns
        self._readings: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()

    def of(self, plugin: str) -> Price:
        """The price of a plugin's compute now."""
        return self._calibrated.get(plugin) or self._measured() or self._declared

    def _measured(self) -> Price | None:
        """The board's mean power since the newest reading that is old enough."""
        counter = self._counter
        energy_uj = counter.energy_uj() if counter else None
        if counter is None or energy_uj is None:
            return None
        with self._lock:
            now_ns = self._now_ns()
            self._readings.append((now_ns, energy_uj))
            while len(self._readings) > 1 and self._readings[1][0] <= now_ns - _WINDOW_NS:
                self._readings.popleft()
            then_ns, then_uj = self._readings[0]
        if now_ns - then_ns < _WINDOW_NS or energy_uj <= then_uj:
            return None
        return Price((energy_uj - then_uj) * 1e3 / (now_ns - then_ns), counter.source)


def read_prices(file: Path) -> dict[str, Price]:
    """The prices that ``sage-edge calibrate`` has written.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        prices = {
            name: Price(float(entry["power_w"]), f"calibrated:{entry['source']}")
            for name, entry in document["plugins"].items()
        }
        if not all(0 < price.power_w < float("inf") for price in prices.values()):
            raise ValueError("a power that is not above 0")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ConfigError(f"prices_file: {file}: expected what `sage-edge calibrate` writes: {exc}") from exc
    return prices
