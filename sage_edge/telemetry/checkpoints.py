"""The signed head of the chain, kept beside the journal."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sage_edge.errors import ConfigError
from sage_edge.telemetry.canonical import Link, link_before, link_of, to_line
from sage_edge.telemetry.signing import SigningKey, is_signed

log = logging.getLogger(__name__)

HEAD_NAME = "audit_head.json"
KEY_NAME = "audit_key.pem"


class Checkpoints:
    """Signs links of the chain, and keeps the newest signature and the chain's beginning in a file.

    The head is ``{begin_seq, begin_prev_hash, signed_seq, signed_hash, public_key, signature}``: the place
    where the files begin, and the record up to which they were signed.

    Threads: one at a time; ``head`` from any.
    """

    def __init__(self, directory: Path, *, key_file: Path | None, every: int) -> None:
        """Name the files; nothing is read before ``open``.

        Args:
            directory: The journal's.
            key_file: Where the key is; None for ``audit_key.pem`` in ``directory``.
            every: Records between two checkpoints.
        """
        self._path = directory / HEAD_NAME
        self._key_file = key_file or directory / KEY_NAME
        self._key: SigningKey | None = None
        self._is_failing = False
        self.every = every
        #: The newest signed head; None before ``open``.
        self.head: dict[str, Any] | None = None

    @property
    def exist(self) -> bool:
        """Whether there is a head already."""
        return self._path.exists()

    def open(self, *, newest: Link, begin: Callable[[], Link]) -> Link:
        """Read key and head; sign a first head when there is none.

        Args:
            newest: The newest record on file.
            begin: Finds what the first record on file is tied to; asked without a head.

        Returns:
            The link that is signed.

        Raises:
            ConfigError: The key is none, or another key signed the head.
            OSError: A file cannot be read or made.
        """
        self._key = SigningKey(self._key_file)
        if self._path.exists():
            self.head = self._read()
        else:
            self._publish(begin(), newest)
        return Link(self.head["signed_seq"], self.head["signed_hash"]) if self.head else newest

    def fields(self, newest: Link) -> dict[str, Any]:
        """The fields of a checkpoint record that follows ``newest``."""
        if self._key is None:
            raise RuntimeError("checkpoints are not open")
        return self._key.sign({"signed_seq": newest.seq, "signed_hash": newest.record_hash})

    def advance(self, newest: Link) -> None:
        """Sign the records up to ``newest``, which are on the disk."""
        if self.head:
            self._publish(Link(self.head["begin_seq"] - 1, self.head["begin_prev_hash"]), newest)

    def declare_beginning(self, line: bytes, is_kept: bool) -> None:
        """The oldest file is about to be deleted.

        Args:
            line: The oldest line that stays, or if none stays the newest of those that go.
            is_kept: Whether it stays.
        """
        link = link_before(line) if is_kept else link_of(line)
        if self.head and link:
            self._publish(link, Link(self.head["signed_seq"], self.head["signed_hash"]))

    def _read(self) -> dict[str, Any]:
        try:
            head = json.loads(self._path.read_bytes())
        except ValueError:
            head = None
        if not (isinstance(head, dict) and is_signed(head) and self._key):
            raise ConfigError(
                f"{self._path}: expected a signed head of the audit chain; move the folder away"
            )
        if head["public_key"] != self._key.public_key:
            raise ConfigError(
                f"{self._path}: expected a head signed by {self._key.public_key}, got one by "
                f"{head['public_key']}; give that key back (audit_key) or move the folder away"
            )
        return head

    def _publish(self, begin: Link, signed: Link) -> None:
        """Replace the head as a whole; a disk that refuses is said once and tried at the next checkpoint."""
        if self._key is None:
            return
        head = self._key.sign(
            {
                "begin_seq": begin.seq + 1,
                "begin_prev_hash": begin.record_hash,
                "signed_seq": signed.seq,
                "signed_hash": signed.record_hash,
            }
        )
        self.head = head
        try:
            _replace(self._path, to_line(head).encode() + b"\n")
        except OSError as exc:
            if not self._is_failing:
                log.error("telemetry_audit_head_failed error=%r action=try_at_next_checkpoint", str(exc))
            self._is_failing = True
        else:
            self._is_failing = False


def _replace(path: Path, content: bytes) -> None:
    """The old content or the new one, whole, whenever the power fails."""
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
