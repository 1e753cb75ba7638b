"""The chain on file: every line, link, signature and end of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sage_edge.telemetry.audit.findings import Finding, LoggedRecord, differs
from sage_edge.telemetry.canonical import draft, seal
from sage_edge.telemetry.checkpoints import HEAD_NAME
from sage_edge.telemetry.journal import FILE_NAME
from sage_edge.telemetry.records import Record
from sage_edge.telemetry.schema import TelemetryValidator
from sage_edge.telemetry.signing import is_signed

_HEAD_FIELDS = {"begin_seq", "begin_prev_hash", "signed_seq", "signed_hash", "public_key", "signature"}

#: Versions of records that have no hashes; plain IRP records have no version.
_UNCHAINED = (None, "1.0")


class Trail:
    """Reads the files of one journal, oldest first, and notes what breaks the chain.

    Attributes:
        findings: What is wrong.
        records: Records of the chain.
        unchained: Records of schema version 1.0 before it.
        gaps: How many gaps in ``seq`` there are: declared losses.
        lost: Records lost in them.
        checkpoints: Signed checkpoints.
        unsigned: Records after the newest of them.
        torn_bytes: Length of a line that a crash cut off at the end.
    """

    def __init__(self, path: Path, *, validator: TelemetryValidator, public_key: str | None) -> None:
        """Name the files; nothing is read yet.

        Args:
            path: A telemetry folder, or the newest file in it.
            validator: Checks the records.
            public_key: The key that must have signed, in hex; None for any one key.

        Raises:
            FileNotFoundError: There is neither a journal nor a head.
        """
        self._journal = path / FILE_NAME if path.is_dir() else path
        self._head_file = self._journal.with_name(HEAD_NAME)
        self._files = _files_of(self._journal)
        if not self._files and not self._head_file.exists():
            raise FileNotFoundError(2, "no telemetry journal", str(self._journal))
        self._validator = validator
        self._public_key = public_key
        self._head: dict[str, Any] = {}
        self._prev_hash: str | None = None
        self._seq: int | None = None
        self._found_begin = self._found_signed = False
        self.findings: list[Finding] = []
        self.records = self.unchained = self.gaps = self.lost = 0
        self.checkpoints = self.unsigned = self.torn_bytes = 0

    def logged_records(self) -> Iterator[LoggedRecord]:
        """Every record of the chain that is valid in itself, in the order of the files.

        Raises:
            OSError: A file cannot be read.
        """
        self._head = self._read_head()
        for file in self._files:
            with file.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if logged := self._take(file, number, line):
                        yield logged
        self._check_ends()

    def _take(self, file: Path, number: int, line: bytes) -> LoggedRecord | None:
        """One line; None when there is no record of the chain to hand on."""
        if not line.endswith(b"\n"):
            self.torn_bytes = len(line)
            if file != self._files[-1]:
                self._find(file, number, None, "expected a whole line, got one that is cut off")
            return None
        record = self._parse(file, number, line)
        if record is None:
            return None
        self._check_link(file, number, record)
        logged = LoggedRecord(file, number, record, self.lost)
        if record["kind"] == "checkpoint":
            self._check_signature(logged)
        self.records += 1
        self.unsigned = 0 if record["kind"] == "checkpoint" else self.unsigned + 1
        self._prev_hash, self._seq = record["record_hash"], record["seq"]
        self._found_signed |= record["record_hash"] == self._head.get("signed_hash")
        return logged

    def _parse(self, file: Path, number: int, line: bytes) -> Record | None:
        """A line's record if it is valid and written as it was hashed."""
        try:
            record: Record = json.loads(line)
            errors = self._validator.errors(record)
        except (ValueError, RecursionError) as exc:
            errors = [f"not JSON: {exc}"]
        if errors:
            self._find(file, number, None, f"expected a telemetry record: {errors[0]}")
            self._prev_hash = None  # the break is said once
            return None
        if record.get("schema_version") in _UNCHAINED:
            self._take_unchained(file, number, record)
            return None
        sealed = seal(draft(record), record["prev_hash"])
        if sealed.line + b"\n" != line:
            expected, came = sealed.record_hash, record["record_hash"]
            problem = differs("record_hash (changed)", expected, came)
            if expected == came:
                problem = "expected the record's canonical form, got another spelling"
            self._find(file, number, record["seq"], problem)
        return record

    def _take_unchained(self, file: Path, number: int, record: Record) -> None:
        if self.records or self._prev_hash:
            self._find(file, number, record.get("seq"), "expected a chained record, got one without a hash")
        self.unchained += 1

    def _check_link(self, file: Path, number: int, record: Record) -> None:
        seq, prev_hash = record["seq"], record["prev_hash"]
        self._found_begin |= prev_hash == self._head.get("begin_prev_hash")
        is_linked = self._prev_hash in (None, prev_hash)
        if not is_linked:
            problem = differs("prev_hash (dropped, inserted or moved)", self._prev_hash, prev_hash)
            self._find(file, number, seq, problem)
        if self._seq is not None and seq <= self._seq:
            self._find(file, number, seq, differs("seq", f"more than {self._seq}", seq))
        elif is_linked and (missing := seq - self._expected_seq(seq, prev_hash)) > 0:
            self.gaps += 1
            self.lost += missing

    def _expected_seq(self, seq: int, prev_hash: str) -> int:
        """The number that a record has where nothing was lost before it."""
        if self._seq is not None:
            return self._seq + 1
        return int(self._head["begin_seq"]) if prev_hash == self._head.get("begin_prev_hash") else seq

    def _check_signature(self, logged: LoggedRecord) -> None:
        record = logged.record
        fields = {name: record[name] for name in ("signed_seq", "signed_hash", "public_key", "signature")}
        self.checkpoints += 1
        if not is_signed(fields):
            self.findings.append(logged.finding("signature: expected one by public_key over signed_*"))
        self._check_key(str(logged.file), logged.line, logged.seq, record["public_key"])
        if self._seq is not None and (record["signed_seq"], record["signed_hash"]) != (
            self._seq,
            record["prev_hash"],
        ):
            self.findings.append(logged.finding(differs("signed_seq", self._seq, record["signed_seq"])))

    def _check_key(self, file: str, line: int, seq: int | None, public_key: str) -> None:
        self._public_key = self._public_key or public_key
        if public_key != self._public_key:
            problem = differs("public_key (foreign)", self._public_key, public_key)
            self.findings.append(Finding(file, line, seq, problem))

    def _read_head(self) -> dict[str, Any]:
        """The signed head; empty, with a finding, when there is none to trust."""
        file = self._head_file
        try:
            head = json.loads(file.read_bytes())
        except FileNotFoundError:
            self._find(file, 0, None, "expected a signed head beside the journal, got none")
            return {}
        except ValueError:
            head = None
        if not (isinstance(head, dict) and head.keys() == _HEAD_FIELDS and is_signed(head)):
            self._find(file, 1, None, "expected a signed head, got something else")
            return {}
        self._check_key(str(file), 1, None, head["public_key"])
        return head

    def _check_ends(self) -> None:
        """Whether the files begin where the head says, and hold all that it signs."""
        head = self._head
        if not self.records and not head:
            self._find(self._journal, 0, None, "expected chained records, got none")
        if head and self.records and not self._found_begin:
            problem = differs("beginning", f"seq {head['begin_seq']}", "a later one: records were dropped")
            self._find(self._files[0], 1, None, problem)
        signs_something = head and head["signed_seq"] >= head["begin_seq"]
        if signs_something and not self._found_signed:
            expected = f"seq {head['signed_seq']} with hash {head['signed_hash']}, which is signed"
            self._find(self._journal, 0, None, differs("records (truncated or changed)", expected, "none"))

    def _find(self, file: Path, line: int, seq: int | None, problem: str) -> None:
        self.findings.append(Finding(str(file), line, seq, problem))


def _files_of(journal: Path) -> Sequence[Path]:
    """A journal and what it was rotated into, oldest first."""
    rotated = [
        path
        for path in journal.parent.glob(f"{journal.name}.*")
        if path.name.removeprefix(f"{journal.name}.").isdigit()
    ]
    rotated.sort(key=lambda path: -int(path.name.rpartition(".")[2]))
    return [*rotated, *([journal] if journal.exists() else [])]
