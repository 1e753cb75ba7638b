"""Calibration against a plugin and a board whose time and power are known."""

from __future__ import annotations

import json

import pytest

from sage_edge.cli import main
from sage_edge.commands.calibration import calibrate
from sage_edge.config import Settings
from sage_edge.orchestrator.prices import read_prices
from tests.fakes import FakeClock
from tests.quadratic import QuadraticPlugin


class SteadyBoard:
    """Draws 8 W."""

    source, covers = "ina3221:VDD_IN", "board"

    def __init__(self, clock):
        self.clock, self.energy, self._uj = clock, self, 0

    def sample_once(self):
        self._uj = int(8.0 * self.clock.monotonic_ns() / 1e3)

    def energy_uj(self):
        return self._uj


def measured(board):
    clock = FakeClock()
    plugin = QuadraticPlugin(before_step=lambda: clock.advance(0.002))
    inner = plugin.encode

    def encode(inputs):
        clock.advance(0.005)
        return inner(inputs)

    plugin.encode = encode
    document = calibrate(
        {"quadratic": plugin},
        Settings(power_w=20.0, threads=1),
        seconds=0.5,
        clock=clock,
        board=board(clock) if board else None,
    )
    return document["plugins"]["quadratic"]


@pytest.mark.parametrize(
    ("board", "power_w", "source"), [(SteadyBoard, 8.0, "ina3221:VDD_IN"), (None, 20.0, "declared")]
)
def test_time_and_energy_are_what_the_plugin_takes(board, power_w, source):
    entry = measured(board)
    assert entry["source"] == source
    assert entry["power_w"] == pytest.approx(power_w, rel=1e-3)
    assert entry["start_ms"] == pytest.approx({"mean": 5.0, "p10": 5.0, "p90": 5.0})
    assert entry["step_ms"]["mean"] == pytest.approx(2.0)
    assert entry["step_atp"]["mean"] == pytest.approx(2.0 * power_w, rel=1e-3)


def test_the_command_writes_what_the_setting_reads(tmp_path, capsys):
    out = tmp_path / "prices.json"
    assert main(["calibrate", "--plugins", "control", "--seconds", "0.2", "--out", str(out)]) == 0
    assert set(read_prices(out)) == {"control"}
    assert json.loads(out.read_text())["plugins"]["control"]["step_ms"]["mean"] > 0
    assert "control: first state" in capsys.readouterr().out
