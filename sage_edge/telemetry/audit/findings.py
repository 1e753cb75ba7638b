"""What an auditor says: a place, and what is wrong there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from sage_edge.telemetry.records import Record


class Finding(NamedTuple):
    """Something that a sound journal does not have.

    Attributes:
        file: The file.
        line: Line in it, from 1; 0 for the file as a whole.
        seq: The record's place, if there is a record.
        problem: What was expected, and what came.
    """

    file: str
    line: int
    seq: int | None
    problem: str

    def __str__(self) -> str:
        """In one line, as a compiler would."""
        seq = "" if self.seq is None else f"seq {self.seq}: "
        return f"{self.file}:{self.line}: {seq}{self.problem}"


class LoggedRecord(NamedTuple):
    """A record and where it stands.

    Attributes:
        file: The file.
        line: Line in it, from 1.
        record: What stands there, valid under the schema.
        lost: Records that gaps in ``seq`` declare as lost before it, in all.
    """

    file: Path
    line: int
    record: Record
    lost: int

    @property
    def seq(self) -> int:
        """The record's place."""
        return int(self.record["seq"])

    def finding(self, problem: str) -> Finding:
        """Something wrong with it."""
        return Finding(str(self.file), self.line, self.seq, problem)


def differs(name: str, expected: Any, came: Any) -> str:
    """A problem in the words that all of them have."""
    return f"{name}: expected {expected}, got {came}"
