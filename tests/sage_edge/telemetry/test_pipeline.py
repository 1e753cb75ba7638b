from __future__ import annotations

import json

import pytest

from sage_edge.config import Settings
from sage_edge.errors import ConfigError
from sage_edge.telemetry import FILE_NAME, Telemetry
from sage_edge.telemetry.signing import read_public_key
from tests.fakes import FakeClock, FakeReader
from tests.sage_edge.telemetry.samples import EVENTS, raw_run, run_info


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


def test_what_is_noted_is_recorded_beside_the_steps(tmp_path):
    telemetry = Telemetry([], settings=Settings(telemetry_dir=str(tmp_path)), clock=FakeClock())
    telemetry.note("ledger", EVENTS["ledger"], time_ns=7)
    telemetry.start()
    telemetry.close()
    first = json.loads((tmp_path / FILE_NAME).read_text().splitlines()[0])
    assert (first["kind"], first["ts_mono_ns"], first["entity_id"]) == ("ledger", 7, "sage-edge")
    assert {name: first[name] for name in EVENTS["ledger"]} == EVENTS["ledger"]


def test_the_audit_head_is_the_one_on_file_and_a_copy(tmp_path):
    telemetry, _ = served(Settings(telemetry_dir=str(tmp_path)))
    head = telemetry.audit_head()
    assert head == json.loads((tmp_path / "audit_head.json").read_text())
    assert head["signed_seq"] == head["begin_seq"] + 2
    head.clear()
    assert telemetry.audit_head() != {}


def test_the_key_may_be_kept_elsewhere(tmp_path):
    settings = Settings(telemetry_dir=str(tmp_path / "telemetry"), audit_key=str(tmp_path / "mine.pem"))
    telemetry, _ = served(settings)
    assert telemetry.audit_head()["public_key"] == read_public_key(tmp_path / "mine.pub.pem")
    assert not list((tmp_path / "telemetry").glob("*.pem"))


def test_a_run_ends_with_the_newest_look_at_the_board_and_with_none_where_that_is_switched_off():
    telemetry, _ = served(Settings(telemetry_dir=""))
    newest = telemetry.board.newest
    told = {"power_mode": newest.power_mode, "temp_C": newest.temp_c, "throttled": newest.throttled}
    assert [record["board"] for record in telemetry.hub.after(-1, 10)[0]] == [None, told]
    telemetry, _ = served(Settings(telemetry_dir="", board_period_s=0.0))
    assert [record["board"] for record in telemetry.hub.after(-1, 10)[0]] == [None, None]


def test_without_a_directory_records_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    telemetry, _ = served(Settings(telemetry_dir=""))
    assert len(telemetry.hub.after(-1, 10)[0]) == 2
    assert list(tmp_path.iterdir()) == []
    assert telemetry.audit_head() is None


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
        "lost_schema": 0,
        "lost_journal": 0,
    }
