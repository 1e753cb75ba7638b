"""The report that an owner of a board attaches to an issue, end to end on this machine."""

from __future__ import annotations

import json
import shutil
from contextlib import closing

import numpy as np
import pytest

from sage_edge import Settings
from sage_edge.cli import main
from sage_edge.clock import SystemClock
from sage_edge.commands.jetson_report import _power_modes, golden_frame, golden_results, make_report, to_page
from sage_edge.commands.power_modes import PowerModes
from sage_edge.config import shared_file
from sage_edge.orchestrator import open_hrm
from sage_edge.telemetry.board import Board, BoardSampler
from tests.fakes import FakeClock
from tests.fixtures.sysfs_tree import lay_out

QUICK = ("--threads", "1", "--slots", "2", "--log-level", "error")


def test_a_report_is_written_end_to_end_and_finds_no_fault_here(tmp_path, capsys):
    assert main(["jetson-report", "--soak-minutes", "0.02", "--out", str(tmp_path / "report"), *QUICK]) == 0
    files = [tmp_path / "report" / "report.json", tmp_path / "report" / "report.md"]
    assert capsys.readouterr().out.splitlines() == [str(file) for file in files]
    report = json.loads(files[0].read_text(), parse_constant=pytest.fail)
    assert list(report["sections"]) == ["doctor", "board", "engines", "golden", "power_modes", "soak"]
    soak = report["sections"]["soak"]
    assert soak["answers"] >= 4
    assert soak["answers_per_s"] == pytest.approx(soak["answers"] / soak["seconds"])
    assert 0 < soak["p50_ms"] <= soak["p99_ms"]
    assert soak["records_lost"] == 0
    assert report["sections"]["golden"]["ok"] is True
    page = files[1].read_text()
    assert page.startswith("# sage-edge jetson-report")
    assert page.count("\n## ") == 6


def test_a_model_that_computes_something_else_is_found_out(tmp_path, vision):
    model = shutil.copytree(shared_file("engines/vision/models/nuclei"), tmp_path / "model")
    golden = json.loads((model / "golden.json").read_text())
    golden["E"]["4"] *= 1.01
    (model / "golden.json").write_text(json.dumps(golden))
    settings = Settings(plugin_config={"vision": {"model": str(model)}}, slots=1, threads=1, telemetry_dir="")
    report = make_report(settings, soak_s=0.2, idle_s=0.01, clock=SystemClock())
    section = report["sections"]["golden"]
    assert (report["ok"], section["ok"]) == (False, False)
    assert section["E_relative_difference"]["4"] == pytest.approx(0.01, rel=0.1)
    assert "## golden: NOT ok" in to_page(report)


def test_results_of_another_model_are_not_compared(tmp_path):
    model = shutil.copytree(shared_file("engines/vision/models/nuclei"), tmp_path / "model")
    golden = json.loads((model / "golden.json").read_text()) | {"model_sha256": ["0" * 64]}
    (model / "golden.json").write_text(json.dumps(golden))
    settings = Settings(plugin_config={"vision": {"model": str(model)}}, slots=1, threads=1, telemetry_dir="")
    section = make_report(settings, soak_s=0.1, idle_s=0.01, clock=SystemClock())["sections"]["golden"]
    assert section["ok"] is False
    assert "another model" in section["why"]


def test_fp16_gives_the_golden_results_within_its_tolerance():
    settings = Settings(precision="fp16", slots=1, threads=1, telemetry_dir="")
    assert make_report(settings, soak_s=0.1, idle_s=0.01, clock=SystemClock())["sections"]["golden"]["ok"]


def test_the_golden_frame_is_the_same_everywhere():
    frame = golden_frame()
    assert (frame.shape, frame.dtype) == ((256, 256, 3), np.dtype(np.uint8))
    assert int(frame.astype(np.int64).sum()) == 6_404_820  # as it was when golden.json was written
    assert {20, 190} == {int(frame.min()), int(frame.max())}


def test_on_a_board_the_report_has_its_rails_and_the_energy_of_an_answer(tmp_path):
    from sage_edge.commands.jetson_report import _board

    with closing(open_hrm(Settings(slots=1, threads=1, telemetry_dir="", board_period_s=0.0))) as hrm:
        clock = FakeClock()
        hrm.telemetry.board = BoardSampler(Board(lay_out("orin_nano", tmp_path)), period_s=1.0, clock=clock)
        hrm.telemetry.board.sample_once()
        section = _board(hrm)
        hrm.telemetry.board = None
        assert golden_results(hrm)["E"]
    assert section["ok"] is True
    assert section["energy"] == {"source": "ina3221:VDD_IN", "covers": "module"}
    assert section["power_w"] == pytest.approx(6.21984)
    assert section["power_mode"] == "15W"


def test_each_power_mode_has_its_figures_and_those_not_allowed_say_why(tmp_path, monkeypatch):
    root = lay_out("orin_nano", tmp_path)
    status, modes = root / "var/lib/nvpmodel/status", PowerModes(root)
    settings = Settings(slots=1, threads=1, telemetry_dir="", board_period_s=0.0)

    def section(mode_s):
        with closing(open_hrm(settings)) as hrm:
            return _power_modes(hrm, modes, mode_s, 0.0, SystemClock())

    told = section(0.0)
    assert (told.pop("ok"), told.pop("in_force")) == (None, "15W")
    assert told == {
        name: {"not_allowed": "--power-modes was not given"} for name in ("25W", "MAXN_SUPER", "7W")
    }
    monkeypatch.setattr(modes, "switch", lambda number: status.write_text(f"pmode:{number:04d}"))
    measured = section(0.05)
    assert (measured.pop("ok"), measured.pop("in_force")) == (True, "15W")
    assert list(measured) == ["15W", "25W", "MAXN_SUPER", "7W"]
    assert all(found["answers_per_s"] > 0 for found in measured.values())
    assert {found["energy_per_answer_mj"] for found in measured.values()} == {None}
    assert modes.in_force == 0
    page = to_page(
        {"report": "r", "version": "v", "ok": True, "sections": {"power_modes": told | {"ok": None}}}
    )
    assert "| 25W | not_allowed --power-modes was not given |" in page
