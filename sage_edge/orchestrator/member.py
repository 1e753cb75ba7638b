"""One run of a scene: what it costs, how far it is, and the orders that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Protocol

from sage_edge.irp.rules import spent_uatp
from sage_edge.native import RunSummary
from sage_edge.orchestrator.allocation import Claim
from sage_edge.orchestrator.prices import Price
from sage_edge.orchestrator.profile import Profile

#: Steps that an allocation looks ahead.
_PLANNED_STEPS = 16


class Group(Protocol):
    """What a member needs of the scene that it belongs to."""

    scene_id: str

    def step(self, member: Member, E_norm: float, spent_uatp: int) -> None:
        """A member has reached a state."""

    def leave(self, member: Member, summary: RunSummary | None) -> None:
        """A member has ended, or never began."""

    def replan(self) -> None:
        """Share the budget anew if something has changed since it was shared."""


class Member:
    """One run of a scene: what it costs, how far it is, and the orders it is given.

    Threads: ``observe`` on its plugin's worker; its ``order`` and its limit are written by any member's
    worker and read by its own.
    """

    def __init__(
        self,
        scene: Group,
        *,
        run_id: int,
        request_id: str,
        plugin: str,
        profile: Profile,
        weight: float,
        E_scale: float,
        max_steps: int,
        price: Price,
        branch: int = 0,
        cap_uatp: int | None = None,
    ) -> None:
        """Make a member that has no limit yet but its own.

        Args:
            scene: What it belongs to.
            run_id: Its number in the records.
            request_id: The request that it answers.
            plugin: Who refines it.
            profile: What its plugin's steps are worth and cost.
            weight: Its trust weight, > 0.
            E_scale: Divide its energies by it.
            max_steps: Steps that it may take.
            price: What its compute costs.
            branch: Its number among the branches of its request.
            cap_uatp: What it may spend at most, whatever the scene has.
        """
        self.scene = scene
        self.run_id = run_id
        self.request_id = request_id
        self.plugin = plugin
        self.profile = profile
        self.weight = weight
        self.branch = branch
        self.order: str | None = None
        #: What it may spend in all as it was last planned, micro-ATP; None without a limit.
        self.limit = cap_uatp
        self._cap_uatp = cap_uatp
        self.spent_uatp = 0
        self.E_norm = self.first_E_norm = nan
        #: The best E_norm so far at each state.
        self.best: list[float] = []
        self.has_ended = False
        self.halt_reason: str | None = None
        self._planned: Sequence[float] = ()
        self._planned_at = 0
        self._E_scale = E_scale
        self._max_steps = max_steps
        self.price = price

    def observe(self, E: float, spent_us: float) -> None:
        """A state was reached."""
        spent = spent_uatp(self.price.power_w, spent_us)  # what its record will say
        self.profile.charge(spent - self.spent_uatp, is_start=not self.best)
        self.scene.step(self, E / self._E_scale, spent)

    def claim(self) -> Claim:
        """What it could do with more of the budget."""
        profile = self.profile
        steps = min(self._max_steps - max(len(self.best) - 1, 0), _PLANNED_STEPS)
        return Claim(
            weight=self.weight,
            spent_uatp=self.spent_uatp,
            start_uatp=0.0 if self.best else profile.start_uatp,
            step_uatp=max(profile.step_uatp, 1.0),
            falls=profile.falls(self.best, steps),
        )

    @property
    def steps(self) -> int:
        """Steps that it has taken."""
        return max(len(self.best) - 1, 0)

    @property
    def limit_uatp(self) -> int | None:
        """What it may spend in all, now; None without a limit."""
        self.scene.replan()
        return self.limit

    @property
    def budget_us(self) -> float | None:
        """The same as compute; its refiner asks before each step."""
        limit_uatp = self.limit_uatp
        return None if limit_uatp is None else limit_uatp / (self.price.power_w * 1e3)

    def plan(self, claim: Claim, limit_uatp: int) -> None:
        """Take a limit, and what it was given for."""
        self._planned, self._planned_at = claim.falls, len(self.best)
        self.may_spend(limit_uatp)

    def may_spend(self, limit_uatp: int) -> None:
        """Take a limit, or its own if that is less."""
        self.limit = limit_uatp if self._cap_uatp is None else min(limit_uatp, self._cap_uatp)

    def is_off_plan(self, tolerance: float) -> bool:
        """Whether it has gained more, or less, than was planned by that share of the whole plan."""
        first = max(self._planned_at, 1)  # gains count from the first state on
        taken = len(self.best) - first
        if taken <= 0:
            return False
        gained = self.best[first - 1] - self.best[-1]
        return abs(gained - sum(self._planned[:taken])) > tolerance * sum(self._planned)
