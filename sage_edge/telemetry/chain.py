"""The hash chain of the records, in memory and on file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sage_edge.errors import ConfigError
from sage_edge.telemetry.canonical import NO_LINK, ZERO_HASH, Draft, Link, Sealed, link_before, link_of, seal
from sage_edge.telemetry.checkpoints import Checkpoints
from sage_edge.telemetry.journal import Journal


class Chain:
    """Numbers records, ties each to the one before, and writes them to the journal.

    The chain goes on after a restart from the newest line on file. When the signed head is ahead of it,
    lines were removed behind our back: the chain then goes on from the head, so that the break stays visible.
    What the journal could not write is tied to its predecessor, and nothing on file is tied to it; it leaves
    a gap in the numbers on file, whoever wrote there meanwhile.

    Threads: one at a time.
    """

    def __init__(
        self, journal: Journal | None, checkpoints: Checkpoints | None, *, first_seq: int = 0
    ) -> None:
        """Take up the chain.

        Args:
            journal: None to keep the chain in memory.
            checkpoints: None to sign nothing.
            first_seq: The first number of a chain that begins anew.

        Raises:
            ConfigError: The files are not ours: no record, a foreign key.
        """
        self._journal = journal
        self._checkpoints = checkpoints
        self._fresh = Link(first_seq - 1, ZERO_HASH)
        self._newest = NO_LINK if journal else self._fresh
        self._next_seq = self._newest.seq + 1
        self._openings = 0
        self._unsigned = 0
        if journal and checkpoints:
            journal.on_drop = checkpoints.declare_beginning
        self.resume()
        head = checkpoints.head if checkpoints else None
        #: The numbers that earlier lives gave, as far back as the files go.
        self.given_before = range(head["begin_seq"] if head else self._next_seq, self._next_seq)

    def resume(self) -> None:
        """Open the journal if it is time to try again, and take up what is on file.

        Raises:
            ConfigError: The files are not ours.
        """
        journal = self._journal
        if not journal or not journal.ready() or journal.openings == self._openings:
            return
        try:
            found = self._on_file(journal)
        except OSError as exc:
            journal.fail(exc)
            return
        except ConfigError:
            journal.close()
            raise
        self._openings = journal.openings
        if found.seq > self._newest.seq:  # another life went on with the files, or ours has only now got them
            unwritten = self._next_seq - 1 - self._newest.seq
            self._newest, self._next_seq = found, found.seq + 1 + unwritten

    def take(self, count: int) -> int:
        """Reserve ``count`` numbers for the next records, lost ones included; returns the first."""
        first = self._next_seq
        self._next_seq += count
        return first

    def append(self, records: Sequence[Draft]) -> list[Sealed]:
        """Tie records to the chain, each to the one before, and write them."""
        sealed: list[Sealed] = []
        for record in records:
            sealed.append(seal(record, sealed[-1].record_hash if sealed else self._newest.record_hash))
        lines = [record.line for record in sealed]
        if kept := self._journal.append(lines) if self._journal else len(lines):
            self._newest = Link(sealed[kept - 1]["seq"], sealed[kept - 1].record_hash)
            self._unsigned += kept
        return sealed

    def checkpoint(self, *, at_end: bool) -> Mapping[str, Any] | None:
        """The fields of the checkpoint record that is due; append it, then call ``sign``.

        Args:
            at_end: Whether any unsigned record makes it due, and not only enough of them.
        """
        signer, journal = self._checkpoints, self._journal
        if not (signer and journal and journal.is_open):
            return None
        return signer.fields(self._newest) if self._unsigned >= (1 if at_end else signer.every) else None

    def sign(self) -> None:
        """Make sure that what was written is on the disk, then sign the newest record."""
        if self._journal and self._journal.flush() and self._checkpoints and self._unsigned:
            self._checkpoints.advance(self._newest)
            self._unsigned = 0

    def _on_file(self, journal: Journal) -> Link:
        """The newest link that the files know of."""
        line = journal.newest_line()
        is_new = not line and self._newest == NO_LINK and not (self._checkpoints and self._checkpoints.exist)
        try:
            newest = link_of(line) if line else self._fresh if is_new else self._newest
        except (ValueError, KeyError, TypeError) as exc:
            raise ConfigError(
                f"telemetry_dir: {journal.path}: expected telemetry records, got {line!r:.80}; move it away"
            ) from exc
        if self._checkpoints is None:
            return newest
        signed = self._checkpoints.open(newest=newest, begin=lambda: _beginning(journal, newest))
        return max(newest, signed, key=lambda link: link.seq)


def _beginning(journal: Journal, newest: Link) -> Link:
    """What the first chained record on file is tied to; ``newest`` when there is none."""
    for line in journal.oldest_lines():
        if link := link_before(line):
            return link
    return newest
