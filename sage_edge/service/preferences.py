"""The Prefer header (RFC 7240): answer later, or answer within so many seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.request import parse_http_list

#: Digits of the longest wait that is understood, thirty thousand years.
_MOST_DIGITS = 12


class Preferences(NamedTuple):
    """What a caller would rather have; what it said in no known way is left out.

    Attributes:
        is_async: Whether it would rather have an address now than wait for the answer.
        wait_s: Whole seconds that it is ready to wait.
    """

    is_async: bool = False
    wait_s: int | None = None

    @property
    def wait_field(self) -> str:
        """The wait as ``Preference-Applied`` names it."""
        return f"wait={self.wait_s}"


def preferences_of(headers: Sequence[str]) -> Preferences:
    """Read all Prefer headers of a request; of a preference that stands twice the first counts."""
    found: dict[str, str] = {}
    for entry in parse_http_list(",".join(headers)):
        name, _, value = entry.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait = found.get("wait", "")
    is_wait = wait.isascii() and wait.isdecimal() and len(wait) <= _MOST_DIGITS
    return Preferences(found.get("respond-async") == "", int(wait) if is_wait else None)
