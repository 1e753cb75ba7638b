"""The ATP ledger: who may spend how much board energy, exact to the micro-ATP and conserved."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sage_edge.errors import LedgerError

#: Writes one operation down: its fields, as the ``ledger`` record has them.
Note = Callable[[Mapping[str, Any]], None]


class Balance(NamedTuple):
    """Integer micro-ATP; 1 ATP is 1 mJ of board energy, so 1 micro-ATP is 1 nJ.

    Attributes:
        initial_uatp: What the account began with, and all that it will ever hold.
        available_uatp: Free to be locked; below 0 after a step that cost more than was there.
        locked_uatp: Set aside for scenes that run.
        adp_uatp: Spent, and not yet recharged.
    """

    initial_uatp: int
    available_uatp: int
    locked_uatp: int
    adp_uatp: int

    @property
    def energy_ratio(self) -> float:
        """ATP / (ATP + ADP); 0.5 when both are 0 (docs/TELEMETRY.md#ledger)."""
        atp = max(self.available_uatp + self.locked_uatp, 0)
        whole = atp + self.adp_uatp
        return atp / whole if whole else 0.5


class Ledger:
    """One account in two phases: lock before the work; settle what was spent after it, and free the rest.

    Invariant: available + locked + adp == initial, checked after every operation.

    Threads: every method from any thread. None is called for each step: a scene locks for many at once.
    """

    def __init__(
        self, capacity_uatp: int, *, recharge_w: float, now_ns: Callable[[], int], note: Note
    ) -> None:
        """Open the account.

        Args:
            capacity_uatp: Its initial balance.
            recharge_w: Rate at which ADP becomes ATP again, in watts (1 W = 1 micro-ATP per ns); 0: at
                once whenever it is needed.
            now_ns: Monotonic time.
            note: Is told of every operation, in order.
        """
        self._balance = Balance(capacity_uatp, capacity_uatp, 0, 0)
        self._recharge_w = recharge_w
        self._now_ns = now_ns
        self._note = note
        self._held: dict[str, int] = {}
        self._numbers = itertools.count()
        self._recharged_ns = now_ns()
        self._lock = threading.Lock()
        with self._lock:
            self._write("open", None, capacity_uatp)

    @property
    def balance(self) -> Balance:
        """The account now."""
        return self._balance

    @property
    def scenes(self) -> int:
        """Scenes that have energy locked: those that wait or run."""
        return len(self._held)

    def lock(self, scene_id: str, wanted_uatp: int) -> int:
        """Set energy aside for a scene, or more of it.

        Returns:
            What was set aside: ``wanted_uatp``, or what was available if that is less.
        """
        with self._lock:
            self._recharge(wanted_uatp)
            granted = max(0, min(wanted_uatp, self._balance.available_uatp))
            self._hold(scene_id, "extend" if scene_id in self._held else "lock", granted)
            return granted

    def settle(self, scene_id: str, spent_uatp: int) -> None:
        """End a scene: what it spent becomes ADP, the rest is available again.

        Raises:
            LedgerError: Nothing was locked for the scene.
        """
        with self._lock:
            if scene_id not in self._held:
                raise LedgerError(f"scene {scene_id}: nothing is locked; lock before the work")
            if (missing := spent_uatp - self._held[scene_id]) > 0:
                self._hold(scene_id, "overdraft", missing)
            held = self._held.pop(scene_id)
            self._move(available=held - spent_uatp, locked=-held, adp=spent_uatp)
            self._write("settle", scene_id, held, spent_uatp)

    def wait_s(self, wanted_uatp: int) -> float:
        """Seconds until that much is available if nobody else asks; infinite if it never will be."""
        with self._lock:
            missing = wanted_uatp - self._balance.available_uatp
            if missing <= 0:
                return 0.0
            if missing > self._balance.adp_uatp:
                return float("inf")
            return missing / self._recharge_w / 1e9 if self._recharge_w else 0.0

    def _recharge(self, wanted_uatp: int) -> None:
        """Turn ADP into ATP, as much as time allows; only when it is needed, so that the log stays short."""
        if self._balance.available_uatp >= wanted_uatp:
            return
        now_ns = self._now_ns()
        allowed = int(self._recharge_w * (now_ns - self._recharged_ns)) if self._recharge_w else None
        amount = self._balance.adp_uatp if allowed is None else min(self._balance.adp_uatp, allowed)
        self._recharged_ns = now_ns
        if amount:
            self._move(available=amount, adp=-amount)
            self._write("recharge", None, amount)

    def _hold(self, scene_id: str, operation: str, amount_uatp: int) -> None:
        self._held[scene_id] = self._held.get(scene_id, 0) + amount_uatp
        self._move(available=-amount_uatp, locked=amount_uatp)
        self._write(operation, scene_id, amount_uatp)

    def _move(self, *, available: int = 0, locked: int = 0, adp: int = 0) -> None:
        before = self._balance
        after = Balance(
            before.initial_uatp,
            before.available_uatp + available,
            before.locked_uatp + locked,
            before.adp_uatp + adp,
        )
        if sum(after[1:]) != after.initial_uatp or after.locked_uatp < 0 or after.adp_uatp < 0:
            raise LedgerError(f"ledger: {before} cannot become {after}")
        self._balance = after

    def _write(
        self, operation: str, scene_id: str | None, amount_uatp: int, spent_uatp: int | None = None
    ) -> None:
        self._note(
            {
                "ledger_seq": next(self._numbers),
                "operation": operation,
                "scene_id": scene_id,
                "amount_uatp": amount_uatp,
                "spent_uatp": spent_uatp,
                "balance": self._balance._asdict(),
                "energy_ratio": self._balance.energy_ratio,
            }
        )
