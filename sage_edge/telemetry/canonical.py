"""The canonical form of a record, and the hash that ties it to the one before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

#: Stands before the first record of a chain.
ZERO_HASH = "0" * 64

_HASH_KEYS = _PREV_KEY, _HASH_KEY = "prev_hash", "record_hash"
#: A JSON value in canonical form; raises ValueError for a number that is not finite.
encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


class Link(NamedTuple):
    """What the next record is tied to.

    Attributes:
        seq: Place of the newest record; -1 before the first.
        record_hash: Its hash; ZERO_HASH before the first.
    """

    seq: int
    record_hash: str


#: Before the first record.
NO_LINK = Link(-1, ZERO_HASH)


class Draft(NamedTuple):
    """A record that is not chained yet: its canonical form, cut where the two hashes belong.

    Attributes:
        head: Up to the value of ``prev_hash``.
        middle: From there up to ``record_hash``.
        tail: From there to the end.
        known: Fields that are at hand without decoding; ``seq`` and ``kind`` at least.
    """

    head: bytes
    middle: bytes
    tail: bytes
    known: Mapping[str, Any]


class Sealed(Mapping[str, Any]):
    """A record of the chain: its line, which is decoded when a field is asked for that is not at hand.

    Attributes:
        line: Its canonical form, without a line end.
        record_hash: Its hash.
    """

    __slots__ = ("_known", "line", "record_hash")

    def __init__(self, line: bytes, record_hash: str, known: Mapping[str, Any]) -> None:
        self.line = line
        self.record_hash = record_hash
        self._known = known

    def __getitem__(self, name: str) -> Any:
        return self._known[name] if name in self._known else self._decoded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())

    def _decoded(self) -> Mapping[str, Any]:
        if _HASH_KEY not in self._known:  # nobody knows it before the line is there
            self._known = json.loads(self.line)
        return self._known


def to_line(record: Mapping[str, Any]) -> str:
    """A record as one line of canonical JSON: sorted keys, no spaces, without its line end.

    Raises:
        ValueError: A number is not finite.
    """
    return record.line.decode() if isinstance(record, Sealed) else encode(record)


def draft(record: Mapping[str, Any]) -> Draft:
    """Cut a record's canonical form where the hashes belong; those that it has are left out.

    Raises:
        ValueError: A number is not finite, or a text is not Unicode.
    """
    known = {name: value for name, value in record.items() if name not in _HASH_KEYS}
    head = encode({name: value for name, value in known.items() if name < _PREV_KEY})[:-1]
    middle = encode({name: value for name, value in known.items() if _PREV_KEY < name < _HASH_KEY})[1:-1]
    tail = encode({name: value for name, value in known.items() if name > _HASH_KEY})[1:]
    middle = f'",{middle},' if middle else '",'
    return Draft(f'{head},"{_PREV_KEY}":"'.encode(), middle.encode(), tail.encode(), known)


def seal(record: Draft, prev_hash: str) -> Sealed:
    """Tie a record to the one before it.

    The hash is that of the canonical JSON of the record without ``record_hash``, which is spliced into its
    sorted place, so that the record is encoded once.
    """
    head, middle, tail, known = record
    before = b"%b%b%b" % (head, prev_hash.encode(), middle)
    record_hash = sha256(before + tail).hexdigest()
    return Sealed(b'%b"record_hash":"%b",%b' % (before, record_hash.encode(), tail), record_hash, known)


def link_of(line: bytes) -> Link:
    """What a record on file offers to the next one; one of schema version 1.0 has no hash.

    Raises:
        ValueError, KeyError, TypeError: The line is no record.
    """
    record = json.loads(line)
    return Link(int(record["seq"]), str(record.get(_HASH_KEY, ZERO_HASH)))


def link_before(line: bytes) -> Link | None:
    """What a record on file is tied to; None when it is not chained."""
    try:
        record = json.loads(line)
        return Link(record["seq"] - 1, record["prev_hash"])
    except (ValueError, KeyError, TypeError):
        return None
