"""Who gets how much of a shared budget: pure functions from claims to limits.

Every policy gives each member a floor first, so that nobody starves, and hands out the whole budget, so
that nothing lies idle. The limits include what was spent, and their sum never exceeds the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

#: Share of the whole budget that each member may count on:
#: docs/ORCHESTRATION.md#scenes-one-budget-for-several-refinements.
FLOOR = 0.05


class Claim(NamedTuple):
    """What one running member could do with more.

    Attributes:
        weight: Its trust weight, > 0.
        spent_uatp: What it has spent.
        start_uatp: What its first state will cost; 0 once it has it.
        step_uatp: What a step costs.
        falls: Expected falls of E_norm of the steps that it may still take.
    """

    weight: float
    spent_uatp: int
    start_uatp: float
    step_uatp: float
    falls: Sequence[float]

    @property
    def need_uatp(self) -> float:
        """What it would spend if nothing stopped it."""
        return self.start_uatp + self.step_uatp * len(self.falls)


#: From what is left beyond the floors and the claims to shares of it.
Policy: TypeAlias = Callable[[float, Sequence[Claim], Sequence[float]], Sequence[float]]


def limits(policy: Policy, budget_uatp: int, spent_uatp: int, claims: Sequence[Claim]) -> list[int]:
    """The limit of each running member, including what it has spent, micro-ATP.

    Args:
        policy: One of POLICIES.
        budget_uatp: The shared budget.
        spent_uatp: What was spent of it by all members, ended ones too.
        claims: Those of the running members.
    """
    left = max(budget_uatp - spent_uatp, 0)
    floors = [min(max(FLOOR * budget_uatp, claim.start_uatp), claim.need_uatp) for claim in claims]
    if sum(floors) > left:
        floors = [floor * left / sum(floors) for floor in floors]
    shares = policy(left - sum(floors), claims, floors)
    return [
        claim.spent_uatp + int(floor + share)
        for claim, floor, share in zip(claims, floors, shares, strict=True)
    ]


def equal(left: float, claims: Sequence[Claim], floors: Sequence[float]) -> list[float]:
    """The same for everybody."""
    return _by([1.0] * len(claims), left)


def proportional(left: float, claims: Sequence[Claim], floors: Sequence[float]) -> list[float]:
    """In proportion to what each would spend if nothing stopped it."""
    return _by([claim.need_uatp for claim in claims], left)


def trust_weighted(left: float, claims: Sequence[Claim], floors: Sequence[float]) -> list[float]:
    """In proportion to the trust weights: the protocol's own rule."""
    return _by([claim.weight for claim in claims], left)


def greedy(left: float, claims: Sequence[Claim], floors: Sequence[float]) -> list[float]:
    """Step by step to whoever is expected to lower H the most for its price; what nobody needs, equally.

    With falls that shrink from step to step this is the best that can be done. Where they do not, several
    steps are taken as one (the upper concave hull). Half a step beyond the last one that is paid for is
    set aside, as a step may cost a little more than the last one did.
    """
    offers = []
    for number, claim in enumerate(claims):
        covered = max(floors[number] - claim.start_uatp, 0.0)
        for value, price in _hull(claim):
            paid = min(covered, price)
            covered -= paid
            if price > paid:
                offers.append((value / price, number, price - paid))
    shares = [0.0] * len(claims)
    for _, number, price in sorted(offers, key=lambda offer: -offer[0]):
        wanted = price if shares[number] else price + 0.5 * claims[number].step_uatp
        if wanted <= left:
            shares[number] += wanted
            left -= wanted
    return [share + rest for share, rest in zip(shares, _by([1.0] * len(claims), left), strict=True)]


POLICIES: dict[str, Policy] = {
    "equal": equal,
    "proportional": proportional,
    "trust": trust_weighted,
    "greedy": greedy,
}


def _by(weights: Sequence[float], left: float) -> list[float]:
    """A sum divided in proportion; equally where every weight is 0."""
    total = sum(weights)
    if total <= 0:
        return [left / len(weights) for _ in weights]
    return [left * weight / total for weight in weights]


def _hull(claim: Claim) -> list[tuple[float, float]]:
    """The steps ahead as (value, price), steps that pay late joined so that value over price falls."""
    offers: list[tuple[float, float]] = []
    for fall in claim.falls:
        offer = (claim.weight * fall, claim.step_uatp)
        while offers and offer[0] * offers[-1][1] > offers[-1][0] * offer[1]:
            value, price = offers.pop()
            offer = (offer[0] + value, offer[1] + price)
        offers.append(offer)
    return offers
