from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from sage_edge.errors import ConfigError
from sage_edge.telemetry import FILE_NAME, Journal
from tests.fakes import FakeClock


def open_journal(directory, clock=None, **limits):
    return Journal(directory, clock=clock or FakeClock(), **({"max_bytes": 1 << 20, "backups": 2} | limits))


def line(seq):
    return json.dumps({"seq": seq})


def written(directory):
    return [json.loads(text)["seq"] for text in (directory / FILE_NAME).read_text().splitlines()]


def test_a_record_is_on_file_as_soon_as_append_returns(tmp_path):
    journal = open_journal(tmp_path / "new" / "directory")
    journal.append([line(0), line(1)])
    assert written(tmp_path / "new" / "directory") == [0, 1]
    assert journal.lost == 0
    journal.close()


@pytest.mark.parametrize(("tail", "next_seq"), [("", 43), ('{"seq": 43', 43), ('{"seq": 43}\n', 44)])
def test_numbers_go_on_after_the_last_complete_line(tmp_path, tail, next_seq):
    (tmp_path / FILE_NAME).write_text('{"seq": 41}\n{"seq": 42}\n' + tail)
    journal = open_journal(tmp_path)
    assert journal.next_seq == next_seq
    journal.close()


def test_numbers_go_on_when_the_last_thing_done_was_a_rotation(tmp_path):
    (tmp_path / FILE_NAME).touch()
    (tmp_path / f"{FILE_NAME}.1").write_text('{"seq": 9}\n')
    journal = open_journal(tmp_path)
    assert journal.next_seq == 10
    journal.close()


def test_a_new_journal_starts_at_zero(tmp_path):
    journal = open_journal(tmp_path)
    assert journal.next_seq == 0
    journal.close()


@pytest.mark.parametrize("content", ["not a record\n", '{"a": 1}\n', "[]\n"])
def test_a_file_of_something_else_stops_the_start_and_stays_untouched(tmp_path, content):
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(ConfigError, match=r"expected telemetry records, got b.*move"):
        open_journal(tmp_path)
    assert (tmp_path / FILE_NAME).read_text() == content


def test_a_directory_that_cannot_be_used_at_the_start_is_tried_again_like_a_full_disk(tmp_path, caplog):
    (tmp_path / "disk").touch()
    clock = FakeClock()
    journal = open_journal(tmp_path / "disk", clock)
    journal.append([line(0)])
    assert (journal.next_seq, journal.lost) == (0, 1)
    (tmp_path / "disk").unlink()
    (tmp_path / "disk").mkdir()
    clock.advance(1.0)
    journal.append([line(1)])
    assert (written(tmp_path / "disk"), journal.lost) == ([1], 1)
    assert caplog.text.count("telemetry_journal_failed") == 1
    journal.close()


def test_a_full_disk_costs_records_but_not_the_service(tmp_path, caplog):
    journal = open_journal(tmp_path)
    journal.append([line(0)])
    (tmp_path / FILE_NAME).unlink()
    (tmp_path / FILE_NAME).symlink_to("/dev/full")
    clock = FakeClock()
    journal.close()
    journal = open_journal(tmp_path, clock)
    for seq in range(1, 4):
        journal.append([line(seq)] * 2)
        clock.advance(2.0)
    assert journal.lost == 6
    assert caplog.text.count("telemetry_journal_failed") == 1
    assert os.strerror(28) in caplog.text  # ENOSPC
    (tmp_path / FILE_NAME).unlink()
    journal.append([line(4), line(5)])
    journal.append([line(6)])
    assert written(tmp_path) == [4, 5, 6]
    assert caplog.text.count("telemetry_journal_resumed lost=6") == 1
    assert journal.lost == 6
    journal.close()


def test_a_journal_whose_directory_is_gone_waits_for_it_and_makes_none(tmp_path, caplog):
    directory, clock = tmp_path / "disk", FakeClock()
    journal = open_journal(directory, clock)
    shutil.rmtree(directory)
    journal.append([line(0)])
    clock.advance(5.0)
    journal.append([line(1)])
    assert not directory.exists()
    assert caplog.text.count("telemetry_journal_failed") == 1
    directory.mkdir()
    journal.append([line(2)])
    assert journal.lost == 3, "the last try was less than a second ago"
    clock.advance(1.0)
    journal.append([line(3)])
    assert (written(directory), journal.lost) == ([3], 3)
    journal.close()


def test_trying_again_costs_one_attempt_a_second(tmp_path, monkeypatch):
    directory, clock, attempts = tmp_path / "disk", FakeClock(), []
    journal = open_journal(directory, clock)
    shutil.rmtree(directory)
    reopen = journal._open
    monkeypatch.setattr(journal, "_open", lambda: attempts.append(clock.monotonic_ns()) or reopen())
    for seq in range(100):
        journal.append([line(seq)])
        clock.advance(0.1)
    assert len(attempts) == 9
    assert journal.lost == 100


def test_flushing_or_closing_a_failed_journal_is_harmless(tmp_path):
    journal = open_journal(tmp_path / "disk")
    shutil.rmtree(tmp_path / "disk")
    journal.append([line(0)])
    journal.flush()
    journal.close()
    assert journal.lost == 1


def test_a_journal_rotates_by_size(tmp_path):
    journal = open_journal(tmp_path, max_bytes=30, backups=1)
    journal.append([line(seq) for seq in range(10)])
    journal.close()
    assert [path.name for path in sorted(Path(tmp_path).iterdir())] == [FILE_NAME, f"{FILE_NAME}.1"]
    assert written(tmp_path)[-1] == 9
