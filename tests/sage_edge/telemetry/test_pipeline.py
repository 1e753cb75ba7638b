from __future__ import annotations

import json

import pytest

from sage_edge.config import Settings
from sage_edge.errors import ConfigError
from sage_edge.telemetry import FILE_NAME, Telemetry
from tests.fakes import FakeClock, FakeReader
from tests.sage_edge.telemetry.samples import raw_run, run_info


def served(settings):
    """Telemetry that has seen one run of two records, closed again, and what a subscriber got."""
    telemetry, got = Telemetry([FakeReader([raw_run([2.0, 1.5])])], settings=settings, clock=FakeClock()), []
    telemetry.directory.open(1, run_info())
    telemetry.hub.subscribe(got.append)
    telemetry.start()
    telemetry.close()
    return telemetry, got


def test_records_reach_the_file_the_memory_and_the_subscriber_before_it_is_told_the_end(tmp_path):
    telemetry, got = served(Settings(telemetry_dir=str(tmp_path)))
    kinds = [json.loads(line)["kind"] for line in (tmp_path / FILE_NAME).read_text().splitlines()]
    assert kinds == ["step", "step", "checkpoint"]
    assert [record["kind"] for record in telemetry.hub.after(-1, 10)[0]] == kinds
    assert [records and len(records) for records in got] == [2, 1, None]
    assert len(telemetry.directory) == 0


def test_without_a_directory_records_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    telemetry, _ = served(Settings(telemetry_dir=""))
    assert len(telemetry.hub.after(-1, 10)[0]) == 2
    assert list(tmp_path.iterdir()) == []


def test_memory_is_bounded_by_its_setting():
    telemetry, _ = served(Settings(telemetry_dir="", telemetry_memory=1))
    assert [record["step_idx"] for record in telemetry.hub.after(-1, 10)[0]] == [1]


def test_a_directory_that_cannot_be_used_costs_the_file_and_nothing_else(tmp_path):
    (tmp_path / "file").touch()
    telemetry, _ = served(Settings(telemetry_dir=str(tmp_path / "file")))
    assert len(telemetry.hub.after(-1, 10)[0]) == 2
    assert telemetry.status()["lost_journal"] == 2


def test_a_file_of_something_else_stops_the_start(tmp_path):
    (tmp_path / FILE_NAME).write_text("my notes\n")
    with pytest.raises(ConfigError, match="move it away"):
        Telemetry([], settings=Settings(telemetry_dir=str(tmp_path)), clock=FakeClock())


def test_the_status_tells_what_was_published_and_lost(tmp_path):
    telemetry, _ = served(Settings(telemetry_dir=str(tmp_path)))
    assert telemetry.status() == {
        "published": 3,
        "lost_mailbox": 0,
        "lost_events": 0,
        "lost_directory": 0,
        "lost_plugin": 0,
        "lost_schema": 0,
        "lost_journal": 0,
    }
