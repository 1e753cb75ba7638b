"""What callers have sent, as it stands in a message: short, and at little cost, whatever it is."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from reprlib import Repr
from typing import Any

_MOST_NAMES = 16


class _Short(Repr):
    """reprlib's, which sorts no mapping, since that may be large."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlist = self.maxtuple = self.maxdict = 8
        self.maxstring = self.maxother = self.maxlong = 80

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        if level <= 0:
            return "{...}"
        shown_pairs = [
            f"{self.repr1(key, level - 1)}: {self.repr1(x[key], level - 1)}"
            for key in islice(x, self.maxdict)
        ]
        return "{" + ", ".join(shown_pairs + ["..."] * (len(x) > self.maxdict)) + "}"


def shown(value: Any) -> str:
    """A value."""
    return _Short().repr(value)


def named(names: Iterable[str]) -> str:
    """Names in alphabetical order; the first of them where there are many."""
    first = [*islice(names, _MOST_NAMES + 1)]
    listed = [shown(name) for name in sorted(first[:_MOST_NAMES])] + ["..."] * (len(first) > _MOST_NAMES)
    return f"[{', '.join(listed)}]"
