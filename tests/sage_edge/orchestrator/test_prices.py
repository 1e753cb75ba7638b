"""Prices: what a microsecond costs, and how that is known."""

from __future__ import annotations

import json

import pytest

from sage_edge.errors import ConfigError
from sage_edge.orchestrator.prices import Price, Prices, read_prices
from tests.fakes import FakeClock

DECLARED = Price(15.0, "declared")


class Sensor:
    """A board that draws ``watts``, as long as it can be read."""

    source, covers = "ina3221:VDD_IN", "board"

    def __init__(self, clock, watts):
        self.clock, self.watts = clock, watts

    def energy_uj(self):
        return None if self.watts is None else int(self.watts * self.clock.monotonic_ns() / 1e3)


def test_a_board_without_a_sensor_is_priced_as_declared():
    assert Prices(15.0, now_ns=lambda: 0).of("vision") == DECLARED


def test_a_sensor_prices_by_its_mean_power_and_says_its_name():
    clock = FakeClock()
    prices = Prices(15.0, counter=Sensor(clock, 7.0), now_ns=clock.monotonic_ns)
    assert prices.of("vision") == DECLARED  # nothing to take a mean of yet
    clock.advance(1.0)
    power_w, source = prices.of("vision")
    assert power_w == pytest.approx(7.0, rel=1e-6)
    assert source == "ina3221:VDD_IN"


def test_a_price_follows_the_power_of_the_last_half_second():
    clock = FakeClock()
    sensor = Sensor(clock, 10.0)
    prices = Prices(15.0, counter=sensor, now_ns=clock.monotonic_ns)
    total_uj = 0

    def energy_uj():
        return total_uj

    sensor.energy_uj = energy_uj
    for watts in [10.0] * 20 + [30.0] * 20:
        prices.of("vision")
        clock.advance(0.1)
        total_uj += int(watts * 0.1 * 1e6)
    assert prices.of("vision").power_w == pytest.approx(30.0, rel=1e-3)


def test_a_sensor_that_cannot_be_read_is_no_reason_to_charge_nothing():
    clock = FakeClock()
    sensor = Sensor(clock, 7.0)
    prices = Prices(15.0, counter=sensor, now_ns=clock.monotonic_ns)
    prices.of("vision")
    clock.advance(1.0)
    sensor.watts = None
    assert prices.of("vision") == DECLARED


def test_a_calibrated_plugin_keeps_its_price(tmp_path):
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"plugins": {"vision": {"power_w": 9.5, "source": "rapl:package-0"}}}))
    clock = FakeClock()
    prices = Prices(15.0, calibrated=read_prices(file), counter=Sensor(clock, 7.0), now_ns=clock.monotonic_ns)
    clock.advance(1.0)
    assert prices.of("vision") == Price(9.5, "calibrated:rapl:package-0")
    assert prices.of("control").source != "calibrated:rapl:package-0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"plugins": 3}',
        '{"plugins": {"v": {}}}',
        '{"plugins": {"v": {"power_w": -1, "source": "x"}}}',
    ],
)
def test_a_file_that_holds_no_prices_stops_the_start(tmp_path, text):
    file = tmp_path / "prices.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match="sage-edge calibrate"):
        read_prices(file)
