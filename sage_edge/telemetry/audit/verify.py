"""An audit from the files to its verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_edge.telemetry.audit.books import Books
from sage_edge.telemetry.audit.findings import Finding
from sage_edge.telemetry.audit.trail import Trail
from sage_edge.telemetry.checkpoints import KEY_NAME
from sage_edge.telemetry.schema import TelemetryValidator
from sage_edge.telemetry.signing import public_key_path, read_public_key


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit of one journal found.

    Attributes:
        path: What was audited.
        findings: What is wrong, in the order of the files; empty for a sound journal.
        records: Records in the chain.
        unchained: Records of schema version 1.0 before it.
        gaps, lost: Gaps in ``seq``, and the records that they declare as lost.
        checkpoints: Signed checkpoints.
        unsigned: Records after the newest of them.
        torn_bytes: Length of a line that a crash cut off at the end.
        runs: Runs with a final record.
        cut_off: Runs without one: a crash, a restart or a loss ended them, or they still run.
        spent_uatp: What the runs with a final record spent, micro-ATP.
        power_modes: Power modes of the board in which runs ended.
        hottest_C: Hottest zone at the end of a run; None where no board told.
        throttled: Runs at whose end the board was slowed down.
    """

    path: str
    findings: list[Finding]
    records: int
    unchained: int
    gaps: int
    lost: int
    checkpoints: int
    unsigned: int
    torn_bytes: int
    runs: int
    cut_off: int
    spent_uatp: int
    power_modes: list[str]
    hottest_C: float | None
    throttled: int

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def is_complete(self) -> bool:
        """Whether every record that was to be is there: only then is all that happened proven."""
        return not self.lost

    @property
    def verdict(self) -> str:
        """In words."""
        if self.findings:
            return f"{len(self.findings)} findings"
        if not self.is_complete:
            return f"sound, but not complete: {self.lost} records were never written, and stay unknown"
        return "sound"

    def document(self) -> dict[str, Any]:
        """The report as JSON."""
        numbers = {name: getattr(self, name) for name in self.__slots__ if name != "findings"}
        findings = [finding._asdict() for finding in self.findings]
        judged = {"verdict": self.verdict, "is_sound": self.is_sound, "is_complete": self.is_complete}
        return {**numbers, **judged, "findings": findings}

    def lines(self) -> Iterator[str]:
        """The report as text."""
        yield from (str(finding) for finding in self.findings)
        yield f"journal      {self.path}"
        yield f"records      {self.records}, and {self.unchained} before the chain"
        yield f"gaps         {self.gaps}, {self.lost} records declared lost"
        yield f"checkpoints  {self.checkpoints}, {self.unsigned} records after the newest"
        yield f"cut off      {self.torn_bytes} bytes at the end"
        yield f"runs         {self.runs} ended, {self.cut_off} without a final record"
        yield f"ATP spent    {self.spent_uatp / 1e6:.6f}"
        hottest = "not known" if self.hottest_C is None else f"{self.hottest_C:.1f} C"
        modes = ", ".join(self.power_modes) or "not known"
        yield f"board        power mode {modes}, hottest {hottest}, {self.throttled} runs ended throttled"
        yield f"verdict      {self.verdict}"


def verify(path: Path, *, validator: TelemetryValidator, public_key: Path | None = None) -> Report:
    """Check the chain, the signatures and the ends of a journal, and recompute its books.

    Args:
        path: A telemetry folder, or the newest file in it; rotated files and the head stand beside it.
        validator: Checks each record.
        public_key: PEM file of the key that must have signed; by default the one beside the journal, and
            without that any one key.

    Raises:
        ConfigError: The public key is none.
        OSError: A file cannot be read.
    """
    beside = public_key_path((path if path.is_dir() else path.parent) / KEY_NAME)
    key_file = public_key or (beside if beside.exists() else None)
    trail = Trail(path, validator=validator, public_key=read_public_key(key_file) if key_file else None)
    books = Books()
    for logged in trail.logged_records():
        books.take(logged)
    books.close()
    return Report(
        path=str(path),
        findings=trail.findings + books.findings,
        records=trail.records,
        unchained=trail.unchained,
        gaps=trail.gaps,
        lost=trail.lost,
        checkpoints=trail.checkpoints,
        unsigned=trail.unsigned,
        torn_bytes=trail.torn_bytes,
        runs=books.ended,
        cut_off=books.cut_off,
        spent_uatp=books.spent_uatp,
        power_modes=sorted(books.power_modes),
        hottest_C=books.hottest_C,
        throttled=books.throttled,
    )
