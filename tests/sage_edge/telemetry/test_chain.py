"""The chain with its journal and its signed head, on real files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.errors import ConfigError
from sage_edge.telemetry import FILE_NAME, ZERO_HASH, Chain, Checkpoints, Journal, draft
from sage_edge.telemetry.checkpoints import HEAD_NAME
from sage_edge.telemetry.signing import is_signed
from tests.fakes import FakeClock


class Disk:
    """One life of a process that writes to a folder."""

    def __init__(self, directory, *, max_bytes=1 << 20, backups=1, every=1000, clock=None, first_seq=0):
        self.clock = clock or FakeClock()
        self.journal = Journal(directory, max_bytes=max_bytes, backups=backups, clock=self.clock)
        self.checkpoints = Checkpoints(directory, key_file=None, every=every)
        self.chain = Chain(self.journal, self.checkpoints, first_seq=first_seq)

    def write(self, count):
        for _ in range(count):
            self.chain.append([draft({"entity_id": "robot", "seq": self.chain.take(1)})])

    def sign(self):
        if fields := self.chain.checkpoint(at_end=True):
            self.chain.append([draft({"entity_id": "robot", "seq": self.chain.take(1), **fields})])
            self.chain.sign()

    def close(self):
        self.journal.close()


def lines(directory):
    return [json.loads(line) for line in (directory / FILE_NAME).read_text().splitlines()]


def head(directory):
    return json.loads((directory / HEAD_NAME).read_text())


def assert_chained(records, first_prev=ZERO_HASH):
    prev = first_prev
    for record in records:
        assert record["prev_hash"] == prev
        prev = record["record_hash"]


@given(st.lists(st.integers(0, 5), max_size=5))
def test_the_chain_goes_on_over_restarts(tmp_path_factory, lives):
    directory = tmp_path_factory.mktemp("journal")
    for count in lives:
        disk = Disk(directory)
        disk.write(count)
        disk.close()
    records = lines(directory) if lives else []
    assert [record["seq"] for record in records] == list(range(sum(lives)))
    assert_chained(records)


def test_a_torn_line_is_cut_and_the_chain_goes_on_from_the_one_before(tmp_path):
    disk = Disk(tmp_path)
    disk.write(3)
    disk.close()
    content = (tmp_path / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).write_bytes(content[:-9])
    disk = Disk(tmp_path)
    disk.write(2)
    disk.close()
    assert [record["seq"] for record in lines(tmp_path)] == [0, 1, 2, 3]
    assert_chained(lines(tmp_path))


def test_records_of_version_1_0_are_followed_by_the_beginning_of_the_chain(tmp_path):
    (tmp_path / FILE_NAME).write_text('{"schema_version":"1.0","seq":41}\n')
    disk = Disk(tmp_path)
    disk.write(1)
    disk.close()
    new = lines(tmp_path)[1]
    assert (new["seq"], new["prev_hash"]) == (42, ZERO_HASH)
    assert (head(tmp_path)["begin_seq"], head(tmp_path)["begin_prev_hash"]) == (42, ZERO_HASH)


def test_what_the_journal_lost_leaves_a_gap_and_the_chain_skips_it(tmp_path):
    disk = Disk(tmp_path)
    disk.write(1)
    disk.journal.fail(OSError("unplugged"))
    disk.write(2)
    disk.clock.advance(2.0)
    disk.chain.resume()
    disk.write(1)
    disk.close()
    assert [record["seq"] for record in lines(tmp_path)] == [0, 3]
    assert_chained(lines(tmp_path))


def test_a_file_that_appears_later_is_taken_up_where_it_ends(tmp_path):
    directory = tmp_path / "disk"
    earlier = Disk(directory)
    earlier.write(5)
    earlier.close()
    directory.rename(tmp_path / "unmounted")
    directory.touch()
    disk = Disk(directory)
    disk.write(1)
    directory.unlink()
    (tmp_path / "unmounted").rename(directory)
    disk.clock.advance(2.0)
    disk.chain.resume()
    disk.write(1)
    disk.close()
    assert [record["seq"] for record in lines(directory)] == [0, 1, 2, 3, 4, 6], "one was not written"
    assert_chained(lines(directory))


def test_a_checkpoint_is_due_after_so_many_records_and_at_the_end_after_any(tmp_path):
    disk = Disk(tmp_path, every=3)
    assert disk.chain.checkpoint(at_end=True) is None
    disk.write(2)
    assert disk.chain.checkpoint(at_end=False) is None
    assert disk.chain.checkpoint(at_end=True)["signed_seq"] == 1
    disk.write(1)
    fields = disk.chain.checkpoint(at_end=False)
    assert (fields["signed_seq"], fields["signed_hash"]) == (2, lines(tmp_path)[2]["record_hash"])
    assert is_signed(fields)
    disk.sign()
    assert disk.chain.checkpoint(at_end=True) is None
    assert (head(tmp_path)["signed_seq"], head(tmp_path)["signed_hash"]) == (
        3,
        lines(tmp_path)[3]["record_hash"],
    )
    assert is_signed(head(tmp_path))
    assert head(tmp_path) == disk.checkpoints.head
    disk.close()


def test_the_head_declares_where_the_files_begin_before_the_oldest_is_deleted(tmp_path):
    disk = Disk(tmp_path, max_bytes=700, backups=1)
    beginnings = []
    for _ in range(12):
        disk.write(1)
        kept = [
            json.loads(line)
            for name in (f"{FILE_NAME}.1", FILE_NAME)
            if (tmp_path / name).exists()
            for line in (tmp_path / name).read_text().splitlines()
        ]
        declared = head(tmp_path)
        assert (declared["begin_seq"], declared["begin_prev_hash"]) == (kept[0]["seq"], kept[0]["prev_hash"])
        assert is_signed(declared)
        beginnings.append(declared["begin_seq"])
    assert beginnings[-1] > 0
    disk.close()


def test_without_backups_the_files_begin_with_the_next_record(tmp_path):
    disk = Disk(tmp_path, max_bytes=700, backups=0)
    disk.write(12)
    disk.close()
    first = lines(tmp_path)[0]
    assert (head(tmp_path)["begin_seq"], head(tmp_path)["begin_prev_hash"]) == (
        first["seq"],
        first["prev_hash"],
    )


def test_lines_removed_while_nobody_ran_leave_a_break_that_stays(tmp_path):
    disk = Disk(tmp_path)
    disk.write(4)
    disk.sign()
    disk.close()
    kept = (tmp_path / FILE_NAME).read_bytes().splitlines(keepends=True)[:2]
    (tmp_path / FILE_NAME).write_bytes(b"".join(kept))
    signed = head(tmp_path)
    disk = Disk(tmp_path)
    disk.write(1)
    disk.close()
    new = lines(tmp_path)[2]
    assert (new["seq"], new["prev_hash"]) == (5, signed["signed_hash"])


def test_a_lost_head_is_made_again_from_the_files(tmp_path):
    disk = Disk(tmp_path, max_bytes=700, backups=1)
    disk.write(12)
    disk.close()
    before = head(tmp_path)
    (tmp_path / HEAD_NAME).unlink()
    Disk(tmp_path, max_bytes=700, backups=1).close()
    after = head(tmp_path)
    assert (after["begin_seq"], after["begin_prev_hash"]) == (before["begin_seq"], before["begin_prev_hash"])
    assert after["signed_seq"] == 11


@pytest.mark.parametrize("content", ["not a record\n", '{"a": 1}\n', "[]\n"])
def test_a_file_of_something_else_stops_the_start_and_stays_untouched(tmp_path, content):
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(ConfigError, match=r"expected telemetry records, got b.*move"):
        Disk(tmp_path)
    assert (tmp_path / FILE_NAME).read_text() == content


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"signature": "00"}'])
def test_a_head_that_is_none_stops_the_start(tmp_path, content):
    (tmp_path / HEAD_NAME).write_text(content)
    with pytest.raises(ConfigError, match=r"audit_head\.json: expected a signed head.*move the folder"):
        Disk(tmp_path)


def test_a_head_that_another_key_signed_stops_the_start(tmp_path):
    disk = Disk(tmp_path)
    disk.close()
    for key in tmp_path.glob("audit_key*"):
        key.unlink()
    with pytest.raises(ConfigError, match="give that key back"):
        Disk(tmp_path)


def test_a_head_that_cannot_be_written_is_said_once_and_tried_again(tmp_path, caplog):
    disk = Disk(tmp_path)
    (tmp_path / f"{HEAD_NAME}.new").mkdir()
    for _ in range(2):
        disk.write(1)
        disk.sign()
    assert caplog.text.count("telemetry_audit_head_failed") == 1
    (tmp_path / f"{HEAD_NAME}.new").rmdir()
    disk.write(1)
    disk.sign()
    assert head(tmp_path)["signed_seq"] == 5
    disk.close()


def test_without_a_journal_records_are_chained_in_memory():
    chain, records = Chain(None, None), [draft({"entity_id": "a", "seq": n}) for n in range(4)]
    assert_chained(chain.append(records[:3]) + chain.append(records[3:]))
    assert chain.checkpoint(at_end=True) is None
    chain.sign()


@given(st.lists(st.tuples(st.integers(0, 2**52), st.integers(0, 3)), min_size=1, max_size=4))
def test_a_chain_begins_where_it_is_told_and_then_goes_on_from_its_files(tmp_path_factory, lives):
    directory, count = tmp_path_factory.mktemp("journal"), 0
    begin = lives[0][0]
    for first_seq, more in lives:
        disk = Disk(directory, first_seq=first_seq)
        assert disk.chain.given_before == range(begin, begin + count)
        disk.write(more)
        count += more
        disk.close()
    assert [record["seq"] for record in lines(directory)] == list(range(begin, begin + count))
    assert (head(directory)["begin_seq"], head(directory)["begin_prev_hash"]) == (begin, ZERO_HASH)
    assert_chained(lines(directory))


def test_a_chain_in_memory_begins_where_it_is_told():
    chain = Chain(None, None, first_seq=700)
    assert (chain.given_before, chain.take(3), chain.take(1)) == (range(700, 700), 700, 703)
