"""Memory by account: what must not grow without end is reserved first, and refused where there is no room."""

from __future__ import annotations

import ctypes
import sys
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any, Final, Generic, NamedTuple, TypeVar

from sage_edge.errors import FrameTooLargeError, MemoryFullError

T = TypeVar("T")
_MIB = 1 << 20
#: What is kept in memory for callers, and how much of the whole each may have. See docs/adr/0018.
SHARES: Final[Mapping[str, int]] = {
    "bodies": 7,
    "decoding": 10,
    "requests": 7,
    "answers": 3,
    "replies": 3,
    "streams": 1,
    "events": 1,
}
#: The last part of an account is for the small: who takes no more than this part of it.
_KEPT_FREE, _SMALL = 8, 64
#: glibc's name for the size of blocks that are mapped one by one, and that size.
_M_MMAP_THRESHOLD, _LARGE_BLOCK = -3, 2 << 20
#: Bytes of a Python object that begins or ends with each of these in JSON, at most.
_TOKENS: Final[Mapping[bytes, int]] = {b"{": 240, b"[": 96, b":": 104, b",": 48, b'"': 40}


class Account:
    """Bytes that may be held for one purpose, and those that are.

    Attributes:
        limit: Bytes there are.
        largest: Bytes that one reservation can ever get: the rest is left for small ones.
        used: Bytes that are held.
        refused: How often there was no room.

    Threads: every method from any thread.
    """

    def __init__(self, name: str, limit: int, *, whole: Account | None = None) -> None:
        self.name = name
        self._whole = whole
        self.limit = limit
        self.largest = limit - limit // _KEPT_FREE
        self.used = 0
        self.refused = 0
        self._lock = Lock()

    def reserve(self, size: int = 0) -> Reservation:
        """Hold bytes.

        Raises:
            FrameTooLargeError: It is more than one reservation can ever get.
            MemoryFullError: There is no room now.
        """
        reservation = Reservation(self)
        reservation.grow(size)
        return reservation

    def has_room(self, size: int) -> bool:
        """Whether a reservation of so many bytes would be granted now."""
        return self.used + size <= self._top(size)

    def part(self, count: int) -> Account:
        """One of ``count`` equal parts of this account, whose bytes count here too."""
        return Account(self.name, self.limit // count, whole=self)

    def take(self, size: int, held: int) -> None:
        """Count bytes that join others of the same reservation; as ``reserve``. For Reservation alone."""
        total = held + size
        with self._lock:
            has_room = self.used + size <= self._top(total)
            if has_room:
                self.used += size
            else:
                self.refused += 1
        if has_room:
            if self._whole:
                self._whole.count(size)
            return
        if total > self.largest:
            raise FrameTooLargeError(
                f"memory for {self.name}: expected a request that takes at most {_mib(self.largest)}, "
                f"got one that takes {_mib(total)} (memory_bytes)"
            )
        raise MemoryFullError(
            f"memory for {self.name}: this takes {_mib(size)}, and {_mib(self.limit - self.used)} of "
            f"{_mib(self.limit)} are free; try again later"
        )

    def count(self, size: int) -> None:
        """Count bytes that were taken, or given back where that is negative. For Reservation alone."""
        with self._lock:
            self.used += size
        if self._whole:
            self._whole.count(size)

    def _top(self, total: int) -> int:
        """Up to which bytes may be held, for a reservation of so many in all."""
        return self.limit if total <= self.limit // _SMALL else self.largest


#: For who has no bound to keep.
UNBOUNDED = Account("unbounded", 1 << 62)


class Reservation:
    """Bytes of an account that are held until the end of a ``with``, or until ``release``.

    Threads: one at a time.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self.size = 0

    def grow(self, size: int) -> None:
        """Hold more bytes; as ``Account.reserve``."""
        self._account.take(size, self.size)
        self.size += size

    def shrink_to(self, size: int) -> None:
        """Give back what is held beyond so many bytes."""
        if size < self.size:
            self._account.count(size - self.size)
            self.size = size

    def release(self) -> None:
        """Give all of it back; more than once does no harm."""
        self.shrink_to(0)

    def move(self) -> Reservation:
        """The same bytes for another holder; nothing is left here."""
        moved = Reservation(self._account)
        moved.size, self.size = self.size, 0
        return moved

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class _Held(NamedTuple, Generic[T]):
    value: T
    room: Reservation


class Kept(Generic[T]):
    """Values by name that may be forgotten: those that were not used for longest make way for a new one.

    Threads: one at a time.
    """

    def __init__(self, capacity: int, memory: Account) -> None:
        """Keep nothing yet.

        Args:
            capacity: Values at most.
            memory: Where they count, and nothing else does.
        """
        self._held: OrderedDict[str, _Held[T]] = OrderedDict()
        self._capacity = capacity
        self._memory = memory

    def __len__(self) -> int:
        return len(self._held)

    def get(self, name: str | None) -> T | None:
        """What was kept last under a name; None for one that is new or forgotten, and without a name."""
        held = None if name is None else self._held.get(name)
        return held.value if held else None

    def keep(self, name: str | None, value: T, size: int) -> None:
        """Remember a value of so many bytes in the place of the name's last, if it fits at all."""
        if name is None:
            return
        if name in self._held:
            self._held.pop(name).room.release()
        while self._held and (len(self._held) >= self._capacity or not self._memory.has_room(size)):
            self._held.popitem(last=False)[1].room.release()
        if self._memory.has_room(size):
            self._held[name] = _Held(value, self._memory.reserve(size))


class MemoryBudget:
    """The accounts of a service, whose limits are shares of one number of bytes."""

    def __init__(self, total: int) -> None:
        whole = sum(SHARES.values())
        self.accounts = {name: Account(name, total * share // whole) for name, share in SHARES.items()}

    def __getitem__(self, name: str) -> Account:
        return self.accounts[name]

    def status(self) -> dict[str, dict[str, int]]:
        """What is held, as JSON."""
        return {
            name: {"used_bytes": account.used, "limit_bytes": account.limit, "refused": account.refused}
            for name, account in self.accounts.items()
        }


def bytes_of(value: Any) -> int:
    """Memory of an array, a text or a number, and of lists and mappings of these."""
    total, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        total += getattr(item, "nbytes", None) or sys.getsizeof(item)
        if isinstance(item, Mapping):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
    return total


def parsed_bytes(text: bytes) -> int:
    """An upper bound of the objects that a piece of JSON becomes, beside its texts themselves."""
    return sum(size * text.count(mark) for mark, size in _TOKENS.items())


def return_large_blocks() -> None:
    """Let the C library give large blocks back to the system as soon as they are free, where it is glibc.

    By itself it learns to keep blocks of up to 32 MiB, each thread's apart.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


def _mib(size: int) -> str:
    return f"{size / _MIB:.1f} MiB"
