from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from sage_edge.telemetry import FILE_NAME, Journal
from tests.fakes import FakeClock


def open_journal(directory, clock=None, **limits):
    return Journal(directory, clock=clock or FakeClock(), **({"max_bytes": 1 << 20, "backups": 2} | limits))


def append(journal, *seqs):
    """Write lines as the drain does: ask whether the journal is ready, then append."""
    journal.ready()
    return journal.append([json.dumps({"seq": seq}).encode() for seq in seqs])


def written(directory):
    return [json.loads(text)["seq"] for text in (directory / FILE_NAME).read_text().splitlines()]


def test_a_line_is_on_file_as_soon_as_append_returns(tmp_path):
    journal = open_journal(tmp_path / "new" / "directory")
    assert append(journal, 0, 1) == 2
    assert written(tmp_path / "new" / "directory") == [0, 1]
    assert journal.lost == 0
    journal.close()


@pytest.mark.parametrize(
    ("tail", "newest"), [("", 42), ('{"seq": 43', 42), ('{"seq": 43}\n', 43)], ids=["none", "torn", "whole"]
)
def test_the_newest_line_is_the_last_whole_one(tmp_path, tail, newest):
    (tmp_path / FILE_NAME).write_text('{"seq": 41}\n{"seq": 42}\n' + tail)
    journal = open_journal(tmp_path)
    assert json.loads(journal.newest_line())["seq"] == newest
    journal.close()


def test_the_newest_line_is_in_the_backup_when_the_last_thing_done_was_a_rotation(tmp_path):
    (tmp_path / FILE_NAME).touch()
    (tmp_path / f"{FILE_NAME}.1").write_text('{"seq": 9}\n')
    journal = open_journal(tmp_path)
    assert journal.newest_line() == b'{"seq": 9}\n'
    journal.close()


def test_lines_are_read_oldest_first_over_all_files(tmp_path):
    journal = open_journal(tmp_path, max_bytes=30)
    append(journal, *range(6))
    assert [json.loads(line)["seq"] for line in journal.oldest_lines()] == list(range(6))
    journal.close()


def test_before_a_file_is_deleted_its_successors_first_line_is_told(tmp_path):
    journal, told = open_journal(tmp_path, max_bytes=30, backups=1), []
    journal.on_drop = lambda line, is_kept: told.append((json.loads(line)["seq"], is_kept))
    append(journal, *range(7))  # two lines to a file
    assert told == [(2, True), (4, True)]
    journal.close()


def test_without_backups_the_newest_line_that_goes_is_told(tmp_path):
    journal, told = open_journal(tmp_path, max_bytes=30, backups=0), []
    journal.on_drop = lambda line, is_kept: told.append((json.loads(line)["seq"], is_kept))
    append(journal, *range(5))
    assert told == [(1, False), (3, False)]
    journal.close()


def test_a_directory_that_cannot_be_used_at_the_start_is_tried_again_like_a_full_disk(tmp_path, caplog):
    (tmp_path / "disk").touch()
    clock = FakeClock()
    journal = open_journal(tmp_path / "disk", clock)
    append(journal, 0)
    assert journal.lost == 1
    (tmp_path / "disk").unlink()
    (tmp_path / "disk").mkdir()
    clock.advance(1.0)
    append(journal, 1)
    assert (written(tmp_path / "disk"), journal.lost) == ([1], 1)
    assert caplog.text.count("telemetry_journal_failed") == 1
    journal.close()


def test_a_full_disk_costs_records_but_not_the_service(tmp_path, caplog):
    journal = open_journal(tmp_path)
    append(journal, 0)
    (tmp_path / FILE_NAME).unlink()
    (tmp_path / FILE_NAME).symlink_to("/dev/full")
    clock = FakeClock()
    journal.close()
    journal = open_journal(tmp_path, clock)
    for seq in range(1, 4):
        append(journal, seq, seq)
        clock.advance(2.0)
    assert journal.lost == 6
    assert caplog.text.count("telemetry_journal_failed") == 1
    assert os.strerror(28) in caplog.text  # ENOSPC
    (tmp_path / FILE_NAME).unlink()
    append(journal, 4, 5)
    append(journal, 6)
    assert written(tmp_path) == [4, 5, 6]
    assert caplog.text.count("telemetry_journal_resumed lost=6") == 1
    assert journal.lost == 6
    journal.close()


def test_a_journal_whose_directory_is_gone_waits_for_it_and_makes_none(tmp_path, caplog):
    directory, clock = tmp_path / "disk", FakeClock()
    journal = open_journal(directory, clock)
    shutil.rmtree(directory)
    append(journal, 0)
    clock.advance(5.0)
    append(journal, 1)
    assert not directory.exists()
    assert caplog.text.count("telemetry_journal_failed") == 1
    directory.mkdir()
    append(journal, 2)
    assert journal.lost == 3, "the last try was less than a second ago"
    clock.advance(1.0)
    append(journal, 3)
    assert (written(directory), journal.lost) == ([3], 3)
    journal.close()


def test_trying_again_costs_one_attempt_a_second(tmp_path, monkeypatch):
    directory, clock, attempts = tmp_path / "disk", FakeClock(), []
    journal = open_journal(directory, clock)
    shutil.rmtree(directory)

    def refuse(*_, **__):
        attempts.append(clock.monotonic_ns())
        raise OSError("still broken")

    monkeypatch.setattr("sage_edge.telemetry.journal.RotatingFile", refuse)
    for seq in range(100):
        append(journal, seq)
        clock.advance(0.1)
    assert len(attempts) == 9
    assert journal.lost == 100


def test_flushing_or_closing_a_failed_journal_is_harmless(tmp_path):
    journal = open_journal(tmp_path / "disk")
    shutil.rmtree(tmp_path / "disk")
    append(journal, 0)
    journal.flush()
    journal.close()
    assert journal.lost == 1


def test_a_journal_rotates_by_size(tmp_path):
    journal = open_journal(tmp_path, max_bytes=30, backups=1)
    append(journal, *range(10))
    journal.close()
    assert [path.name for path in sorted(Path(tmp_path).iterdir())] == [FILE_NAME, f"{FILE_NAME}.1"]
    assert written(tmp_path)[-1] == 9
