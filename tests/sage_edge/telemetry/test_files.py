from __future__ import annotations

import itertools

import pytest

from sage_edge.telemetry import (
    TelemetryValidator,
    files,
    load_schema,
    tail,
    to_line,
    validate_file,
)
from tests.fakes import FakeClock
from tests.oracles.step_record import RawRecord, complete
from tests.sage_edge.telemetry.samples import raw_run, run_info

VALIDATOR = TelemetryValidator(load_schema())
LINE = to_line(complete(RawRecord(*raw_run([2.0])[0].tolist()), run_info(), seq=0, unix_offset_ns=0, n_dE=0))


class ScriptedClock(FakeClock):
    """Does the next thing of a script whenever somebody sleeps."""

    def __init__(self, *script):
        super().__init__()
        self._script = list(script)

    def sleep(self, duration_s):
        super().sleep(duration_s)
        self._script.pop(0)()


def append(path, text):
    with path.open("a") as file:
        file.write(text)


def rotate(path, last, first):
    append(path, last)
    path.rename(path.with_name("log.1"))
    path.write_text(first)


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, ["a", "b", "c"]), (2, ["b", "c"]), (9, ["a", "b", "c"]), (0, [])]
)
def test_tail_gives_the_last_complete_lines(tmp_path, limit, expected):
    (tmp_path / "log").write_text("a\nb\nc\nunfinish")
    assert list(tail(tmp_path / "log", limit=limit, clock=FakeClock())) == expected


def test_tail_of_an_empty_file_is_empty(tmp_path):
    (tmp_path / "log").touch()
    assert list(tail(tmp_path / "log", clock=FakeClock())) == []


def test_tail_of_no_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        next(tail(tmp_path / "log", clock=FakeClock()))


def test_a_followed_file_gives_lines_as_they_are_finished(tmp_path):
    path = tmp_path / "log"
    path.write_text("a\n")
    clock = ScriptedClock(
        lambda: append(path, "b\nc"), lambda: None, lambda: append(path, "c\n"), lambda: append(path, "d\n")
    )
    assert list(itertools.islice(tail(path, follow=True, clock=clock), 4)) == ["a", "b", "cc", "d"]


def test_a_followed_file_may_rotate_without_losing_or_repeating_a_line(tmp_path):
    path = tmp_path / "log"
    path.write_text("a\n")
    clock = ScriptedClock(
        lambda: rotate(path, "b\n", "c\n"),
        lambda: path.rename(tmp_path / "log.1"),
        lambda: path.write_text("d\n"),
    )
    assert list(itertools.islice(tail(path, follow=True, clock=clock), 4)) == ["a", "b", "c", "d"]


def test_a_line_written_between_the_last_look_and_the_rotation_is_not_missed(tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.write_text("a\n")
    is_replaced, rotations = files._is_replaced, [lambda: rotate(path, "b\n", "c\n")]

    def rotate_first(*arguments):
        while rotations:
            rotations.pop()()
        return is_replaced(*arguments)

    monkeypatch.setattr(files, "_is_replaced", rotate_first)
    assert list(itertools.islice(tail(path, follow=True, clock=FakeClock()), 3)) == ["a", "b", "c"]


def test_a_file_of_records_is_valid(tmp_path):
    (tmp_path / "log").write_text(f"{LINE}\n{LINE}\n")
    assert validate_file(tmp_path / "log", VALIDATOR) == (2, [])


def test_an_empty_file_holds_no_record(tmp_path):
    (tmp_path / "log").touch()
    assert validate_file(tmp_path / "log", VALIDATOR) == (0, [])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (LINE.replace('"E":2.0', '"E":NaN'), "not JSON: NaN"),
        (LINE.replace('"E":2.0', '"E":-Infinity'), "not JSON: -Infinity"),
        (LINE.replace('"E":2.0', '"E":1e999'), r"$.E: "),
        (LINE[:-5], "not JSON: "),
        ("", "not JSON: "),
        ("[" * 100_000, "not JSON: "),
        ("\udcff", "not JSON: "),
        ("3", "$: "),
        (LINE.replace('"seq":0,', ""), "$: 'seq'"),
    ],
)
def test_a_bad_line_is_reported_with_its_number_and_the_rest_is_still_checked(tmp_path, bad, message):
    lines = "\n".join([LINE, bad, LINE, LINE.replace('"role":"L"', '"role":"X"')]) + "\n"
    (tmp_path / "log").write_bytes(lines.encode(errors="surrogateescape"))
    report = validate_file(tmp_path / "log", VALIDATOR)
    assert report.records == 4
    assert [number for number, _ in report.invalid] == [2, 4]
    assert report.invalid[0][1].startswith(message)
