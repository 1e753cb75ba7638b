"""The canonical form of a record, and the hash that ties it to the one before."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any, NamedTuple

#: Stands before the first record of a chain.
ZERO_HASH = "0" * 64

_HASH_KEY = "record_hash"
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


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


def to_line(record: dict[str, Any]) -> str:
    """A record as one line of canonical JSON: sorted keys, no spaces, without its line end.

    Raises:
        ValueError: A number is not finite.
    """
    return _encode(record)


def seal(record: dict[str, Any], prev_hash: str) -> str:
    """Tie a record to the one before it: set its ``prev_hash`` and ``record_hash``, and return its line.

    The hash is that of the canonical JSON of the record without ``record_hash``, which is spliced into its
    sorted place, so that the record is encoded once.

    Raises:
        ValueError: A number is not finite, or a text is not Unicode.
    """
    record["prev_hash"] = prev_hash
    before = _encode({key: value for key, value in record.items() if key < _HASH_KEY})[:-1]
    after = _encode({key: value for key, value in record.items() if key > _HASH_KEY})[1:]
    record_hash = record[_HASH_KEY] = sha256(f"{before},{after}".encode()).hexdigest()
    return f'{before},"{_HASH_KEY}":"{record_hash}",{after}'


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
