"""Refinements that share one budget and one end: a posted scene, or a request with its branches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, NamedTuple

from sage_edge.errors import ParameterError
from sage_edge.native import RunSummary
from sage_edge.orchestrator.allocation import POLICIES, limits
from sage_edge.orchestrator.ledger import Ledger
from sage_edge.orchestrator.member import Member

#: Writes an ``allocation`` or ``scene`` record: its kind and fields.
Note = Callable[[str, Mapping[str, Any]], None]

#: Halt reasons after which a run had nothing more to gain.
CONVERGED = ("slope<eps", "feasible", "confidence")
#: Steps that an open-ended hold is extended by when it runs low.
_AHEAD_STEPS = 4


@dataclass(frozen=True, slots=True)
class Rules:
    """How a scene shares and ends.

    Attributes:
        policy: Name of the allocation policy, one of POLICIES.
        hysteresis: Limits stay as they are until some member is off its plan by more than this share of
            all that it was expected to gain.
        K_H: The range of H is taken over so many steps of every running member.
        eps_H: Range of H below which the whole scene halts; 0 never.
    """

    policy: str = "greedy"
    hysteresis: float = 0.3
    K_H: int = 3
    eps_H: float = 1e-3

    def with_policy(self, policy: str) -> Rules:
        """The same with another allocation policy.

        Raises:
            ParameterError: There is none of that name.
        """
        if policy not in POLICIES:
            raise ParameterError(f"policy: expected one of {', '.join(POLICIES)}, got {policy!r}")
        return replace(self, policy=policy)


class Sample(NamedTuple):
    """The orchestrator's energy after one state of one member."""

    time_ns: int
    run_id: int
    step_idx: int
    H: float


class Scene:
    """The members that share one budget, and their energy H = sum of w_i * E_norm_i.

    A member takes part in H from its first state on. When every member that has not ended has taken
    ``K_H`` steps over which H moved by less than ``eps_H``, all of them are ordered to halt.

    Threads: every method from any thread, under a lock of the scene's own.
    """

    def __init__(
        self,
        scene_id: str,
        *,
        ledger: Ledger,
        rules: Rules,
        budget_uatp: int | None,
        now_ns: Callable[[], int],
        note: Note,
        is_posted: bool,
    ) -> None:
        """Make an empty scene.

        Args:
            scene_id: Names it in the records.
            ledger: Where its energy is locked.
            rules: How it shares and ends.
            budget_uatp: What its members may spend together; None: as much as they need.
            now_ns: Monotonic time.
            note: Is given its allocation and scene records.
            is_posted: Whether its members were posted together, and so halt together.
        """
        self.scene_id = scene_id
        self.rules = rules
        self.budget_uatp = budget_uatp
        self.is_posted = is_posted
        self.members: list[Member] = []
        #: H after each state of each member, oldest first; of posted scenes only.
        self.H: list[Sample] = []
        self.global_halt = False
        self._ledger = ledger
        self._now_ns = now_ns
        self._note = note
        self._held_uatp = 0
        # Sums over the members, kept as they change, since a step must not cost more in a larger scene.
        self._spent_uatp = 0
        self._energy = 0.0
        self._running: list[Member] = []
        self._unstarted = 0
        self._steps_since_plan = 0
        self._replan_cause: str | None = None
        self._moves: deque[tuple[int, float]] = deque()
        self._lock = threading.Lock()

    def open(self, members: Sequence[Member], wanted_uatp: int) -> int:
        """Take the members in and lock their budget; once, before any of them runs.

        Args:
            members: All that will ever belong to it.
            wanted_uatp: What to lock: the budget, or what an open-ended scene will probably need.

        Returns:
            What was locked.
        """
        self.members = list(members)
        self._running = list(members)
        self._unstarted = len(members)
        self._held_uatp = self._ledger.lock(self.scene_id, wanted_uatp)
        if self.budget_uatp is not None:
            self.budget_uatp = self._held_uatp
        self._allocate("admit")
        return self._held_uatp

    def replan(self) -> None:
        """Share the budget anew if something has changed since it was shared."""
        if self._replan_cause is not None:
            with self._lock:
                self._allocate(self._replan_cause or "replan")

    @property
    def spent_uatp(self) -> int:
        """What all members have spent."""
        return self._spent_uatp

    @property
    def energy(self) -> float:
        """H now, over the members that have a state."""
        return self._energy

    def step(self, member: Member, E_norm: float, spent_uatp: int) -> None:
        """A member has reached a state."""
        if len(self.members) == 1:
            self._take(member, E_norm, spent_uatp)
            self._hold_enough(member)
            return
        with self._lock:
            self._take(member, E_norm, spent_uatp)
            self._hold_enough(member)
            if self.is_posted:
                self._watch_energy(member)
            self._steps_since_plan += 1
            if self._steps_since_plan > len(self._running) and member.is_off_plan(self.rules.hysteresis):
                self._replan_cause = self._replan_cause or "replan"

    def leave(self, member: Member, summary: RunSummary | None) -> None:
        """A member has ended, or never began; what it leaves is there for the others at once.

        Args:
            member: Each ends once.
            summary: What its run measured; None when it never had a slot.
        """
        with self._lock:
            member.has_ended = True
            self._running.remove(member)
            if not member.best:
                self._unstarted -= 1
            if summary is not None:
                member.halt_reason = summary.halt_reason
                member.profile.learn(member.best, converged=summary.halt_reason in CONVERGED)
            self._replan_cause = "halt"
            if not self._running:
                self._settle()

    def _take(self, member: Member, E_norm: float, spent_uatp: int) -> None:
        self._spent_uatp += spent_uatp - member.spent_uatp
        member.spent_uatp = spent_uatp
        if isfinite(E_norm):  # H keeps the last energy that was a number
            before = member.E_norm if isfinite(member.E_norm) else 0.0
            self._energy += member.weight * (E_norm - before)
            member.E_norm = E_norm
        if not member.best:
            member.first_E_norm = member.E_norm
            self._unstarted -= 1
        member.best.append(min(member.E_norm, member.best[-1]) if member.best else member.E_norm)

    def _hold_enough(self, member: Member) -> None:
        """Extend an open-ended hold before it is used up; where the ledger has no more, that is the limit."""
        if self.budget_uatp is not None:
            return
        next_uatp = 2 * int(member.profile.step_uatp)
        spare_uatp = self._held_uatp - self.spent_uatp
        if spare_uatp >= next_uatp:
            return
        self._held_uatp += self._ledger.lock(self.scene_id, _AHEAD_STEPS * next_uatp - min(spare_uatp, 0))
        if self._held_uatp - self.spent_uatp < next_uatp:
            for other in self.members:
                rest = max(self._held_uatp - self.spent_uatp, 0) // len(self.members)
                other.may_spend(other.spent_uatp + rest)

    def _watch_energy(self, member: Member) -> None:
        """Note H, and halt everybody once it has settled."""
        H = self.energy
        self.H.append(Sample(self._now_ns(), member.run_id, len(member.best) - 1, H))
        if len(member.best) == 1:
            self._moves.clear()  # a member that joins moves H without any progress
        if abs(H - self._moves[-1][1] if self._moves else H) >= self.rules.eps_H:
            self._moves.clear()  # no window that holds this fall is flat
        self._moves.append((member.run_id, H))
        if self.rules.eps_H > 0 and not self._unstarted and self._is_settled_energy():
            self.global_halt = True
            for other in self._running:
                other.order = other.order or "global_halt"

    def _is_settled_energy(self) -> bool:
        """Whether H moved by less than eps_H while each running member took K_H steps."""
        if len(self._moves) <= self.rules.K_H * len(self._running):
            return False
        wanted = {member.run_id: self.rules.K_H + 1 for member in self._running}
        low = high = self._moves[-1][1]
        for run_id, H in reversed(self._moves):
            low, high = min(low, H), max(high, H)
            if high - low >= self.rules.eps_H:
                return False
            if run_id in wanted:
                wanted[run_id] -= 1
                if wanted[run_id] == 0:
                    del wanted[run_id]
            if not wanted:
                return True
        return False

    def _allocate(self, cause: str) -> None:
        """Share what is left of the budget, if there is one, among the members that have not ended."""
        self._replan_cause = None
        if self.budget_uatp is None:
            return
        self._steps_since_plan = 0
        running = self._running
        claims = [member.claim() for member in running]
        moved = limits(POLICIES[self.rules.policy], self.budget_uatp, self.spent_uatp, claims)
        for member, claim, limit_uatp in zip(running, claims, moved, strict=True):
            member.plan(claim, limit_uatp)
        self._note("allocation", self._describe_allocation(cause, running))

    def _describe_allocation(self, cause: str, running: Sequence[Member]) -> dict[str, Any]:
        return {
            "scene_id": self.scene_id,
            "policy": self.rules.policy,
            "cause": cause,
            "limits": [
                {
                    "run_id": member.run_id,
                    "plugin": member.plugin,
                    "limit_uatp": member.limit,
                    "spent_uatp": member.spent_uatp,
                }
                for member in running
            ],
        }

    def _settle(self) -> None:
        self._ledger.settle(self.scene_id, self.spent_uatp)
        if self.is_posted:
            self._note("scene", self.summary())

    def summary(self) -> dict[str, Any]:
        """The scene as its record tells it; energies that never were are null."""
        return {
            "scene_id": self.scene_id,
            "members": [_describe(member) for member in self.members],
            "H_first": _finite(sum(m.weight * m.first_E_norm for m in self.members if m.best)),
            "H_last": _finite(self.energy),
            "K_H": self.rules.K_H,
            "eps_H": self.rules.eps_H,
            "global_halt": self.global_halt,
            "budget_uatp": self.budget_uatp,
        }


def _describe(member: Member) -> dict[str, Any]:
    return {
        "run_id": member.run_id,
        "request_id": member.request_id,
        "plugin": member.plugin,
        "weight": member.weight,
        "E_norm_first": _finite(member.first_E_norm),
        "E_norm_last": _finite(member.E_norm),
        "steps": member.steps,
        "halt_reason": member.halt_reason,
        "spent_uatp": member.spent_uatp,
    }


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
