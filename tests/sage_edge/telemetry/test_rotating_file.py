from __future__ import annotations

import resource
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.telemetry.rotating_file import RotatingFile

LINES = st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")), max_size=40)


def content_of(lines):
    return b"".join(line + b"\n" for line in lines)


def write(file, *lines, at_once=40):
    """Hand over lines as the journal does, at most so many at once, until all are on file."""
    while lines:
        lines = lines[file.write(lines[:at_once]) :]


@contextmanager
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@contextmanager
def largest_file(size_bytes):
    """The system refuses to write past this size, in the middle of a write if need be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def generations(path):
    """The contents of a rotating file, oldest first."""
    backups = sorted(path.parent.glob(f"{path.name}.*"), key=lambda file: -int(file.suffix[1:]))
    return [file.read_bytes() for file in [*backups, path]]


@given(lines=LINES, max_bytes=st.integers(1, 80), backups=st.integers(0, 3), at_once=st.integers(1, 40))
def test_files_hold_the_newest_lines_in_order_and_within_their_size(lines, max_bytes, backups, at_once):
    with folder() as directory:
        file = RotatingFile(directory / "log", max_bytes=max_bytes, backups=backups)
        write(file, *lines, at_once=at_once)
        newest = file.last_line()
        file.close()
        contents = generations(directory / "log")
    assert content_of(lines).endswith(b"".join(contents))
    assert len(contents) <= backups + 1
    assert all(len(content) <= max_bytes or content.count(b"\n") == 1 for content in contents)
    assert all(contents[:-1]), "no file is turned over before it holds a line"
    if len(contents) <= backups:
        assert b"".join(contents) == content_of(lines), "nothing is dropped before the backups are used up"
    assert newest == (lines[-1] + b"\n" if lines else None)


def test_a_second_writer_is_refused_while_the_first_is_open(tmp_path):
    first = RotatingFile(tmp_path / "log", max_bytes=100, backups=1)
    with pytest.raises(OSError, match="another process writes this file"):
        RotatingFile(tmp_path / "log", max_bytes=100, backups=1)
    first.close()
    RotatingFile(tmp_path / "log", max_bytes=100, backups=1).close()


@given(lines=LINES, cut=st.integers(0, 40), more=LINES)
def test_a_line_that_was_cut_off_is_removed_before_the_next_is_written(lines, cut, more):
    content = content_of(lines)
    with folder() as directory:
        path = directory / "log"
        path.write_bytes(content[: max(0, len(content) - cut)])
        kept = path.read_bytes()[: path.read_bytes().rfind(b"\n") + 1]
        file = RotatingFile(path, max_bytes=10_000, backups=1)
        write(file, *more)
        file.close()
        assert path.read_bytes() == kept + content_of(more)


def test_a_file_is_filled_to_its_last_byte(tmp_path):
    file = RotatingFile(tmp_path / "log", max_bytes=10, backups=1)
    write(file, b"four", b"more", b"next")
    file.close()
    assert generations(tmp_path / "log") == [b"four\nmore\n", b"next\n"]


def test_the_removal_of_a_cut_off_line_is_said_with_its_size(tmp_path, caplog):
    (tmp_path / "log").write_bytes(b"whole\ntor")
    RotatingFile(tmp_path / "log", max_bytes=100, backups=0).close()
    assert "removed_bytes=3" in caplog.text


def test_a_write_that_the_system_cuts_short_is_an_error_and_leaves_no_trace(tmp_path):
    file = RotatingFile(tmp_path / "log", max_bytes=1000, backups=0)
    write(file, b"first")
    with largest_file(10), pytest.raises(OSError, match="only a part"):
        file.write([b"second"])
    assert (tmp_path / "log").read_bytes() == b"first\n"
    write(file, b"third")
    file.close()
    assert (tmp_path / "log").read_bytes() == b"first\nthird\n"


@pytest.mark.parametrize(("room", "kept"), [(13, [b"first", b"second"]), (19, [b"first", b"second"])])
def test_of_lines_that_the_system_cuts_short_the_whole_ones_stay(tmp_path, room, kept):
    file = RotatingFile(tmp_path / "log", max_bytes=1000, backups=0)
    with largest_file(room):
        assert file.write([b"first", b"second", b"third and last"]) == len(kept)
    file.close()
    assert (tmp_path / "log").read_bytes() == content_of(kept)


def test_the_newest_line_is_found_in_the_backup_just_after_a_rotation(tmp_path):
    (tmp_path / "log.1").write_bytes(b"older\nnewer\n")
    file = RotatingFile(tmp_path / "log", max_bytes=100, backups=1)
    assert file.last_line() == b"newer\n"
    file.close()


def test_a_deleted_file_is_noticed(tmp_path):
    file = RotatingFile(tmp_path / "log", max_bytes=100, backups=0)
    file.check()
    (tmp_path / "log").unlink()
    with pytest.raises(FileNotFoundError):
        file.check()
    file.close()
