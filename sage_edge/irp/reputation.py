"""Trust (T3) and value (V3) of whoever refines: the formulas of docs/AUDIT.md#how-trust-is-earned, pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple, TypeAlias

from sage_edge.errors import ParameterError

Outcome: TypeAlias = Literal[
    "novel_success", "standard_success", "expected_failure", "unexpected_failure", "ethics_violation"
]

#: Rules by their name and version, as records state them.
QUALITY_RULE, OUTCOME_RULE = "t3-quality-1", "t3-outcome-1"
#: Weights are kept within these.
LEAST_WEIGHT, MOST_WEIGHT = 0.1, 1.0


class Change(NamedTuple):
    """What is added to each side of T3."""

    talent: float
    training: float
    temperament: float


class T3(NamedTuple):
    """Trust of an entity in a role; each side in [0, 1].

    Attributes:
        talent: Aptitude.
        training: Expertise.
        temperament: Consistency.
    """

    talent: float
    training: float
    temperament: float

    @property
    def composite(self) -> float:
        """0.4 talent + 0.3 training + 0.3 temperament."""
        return 0.4 * self.talent + 0.3 * self.training + 0.3 * self.temperament

    @property
    def weight(self) -> float:
        """The composite, kept within [0.1, 1]."""
        return min(max(self.composite, LEAST_WEIGHT), MOST_WEIGHT)

    def plus(self, change: Change) -> T3:
        """Each side changed and clamped to [0, 1]."""
        return T3(*(min(max(side + by, 0.0), 1.0) for side, by in zip(self, change, strict=True)))


#: A new role starts low.
NEW_T3 = T3(0.3, 0.3, 0.3)

_OUTCOMES: dict[Outcome, Change] = {
    "novel_success": Change(0.035, 0.015, 0.01),
    "standard_success": Change(0.0, 0.0075, 0.005),
    "expected_failure": Change(-0.01, 0.0, 0.0),
    "unexpected_failure": Change(-0.02, -0.01, -0.02),
    "ethics_violation": Change(-0.05, 0.0, -0.10),
}
OUTCOMES: tuple[Outcome, ...] = tuple(_OUTCOMES)


def change_by_quality(quality: float) -> Change:
    """With d = 0.02 (quality - 0.5): talent d, training 0.8 d, temperament 0.6 d.

    Raises:
        ParameterError: The quality is not in [0, 1].
    """
    if not 0.0 <= quality <= 1.0:
        raise ParameterError(f"quality: expected 0 to 1, got {quality}")
    d = 0.02 * (quality - 0.5)
    return Change(d, 0.8 * d, 0.6 * d)


def change_by_outcome(outcome: Outcome) -> Change:
    """The row of the outcome table.

    Raises:
        ParameterError: There is no such row.
    """
    if outcome not in _OUTCOMES:
        raise ParameterError(f"outcome: expected one of {', '.join(OUTCOMES)}, got {outcome!r}")
    return _OUTCOMES[outcome]


def change_by_time(idle_months: float) -> Change:
    """Training fades by 0.001 a month, temperament recovers by 0.01, talent stays."""
    return Change(0.0, -0.001 * idle_months, 0.01 * idle_months)


def repetition_weight(n: int) -> float:
    """What the n-th similar action counts, from 1: max(0.8^(n-1), 0.1). Guards against gaming."""
    return max(0.8 ** (n - 1), 0.1)


def total_change(quality: float, outcome: Outcome | None, repetition_n: int, idle_months: float) -> Change:
    """One update: what time did since the last, and what the run adds, weighed by how often it was repeated.

    Raises:
        ParameterError: The quality or the outcome is none.
    """
    by_run = change_by_quality(quality)
    if outcome is not None:
        by_run = change_by_outcome(outcome)
    weight = repetition_weight(repetition_n)
    return Change(*(t + weight * r for t, r in zip(change_by_time(idle_months), by_run, strict=True)))


def rule_of(outcome: Outcome | None) -> str:
    """The rule that an update follows."""
    return QUALITY_RULE if outcome is None else OUTCOME_RULE


@dataclass(frozen=True, slots=True)
class V3:
    """Value of a result, from inputs that are recorded.

    Attributes:
        atp_earned: ATP earned, at least 0.
        atp_expected: ATP expected, above 0.
        satisfaction: Of whoever asked, in [0, 1].
        verified_claims: Claims that held.
        total_claims: Claims made, at least 1.
        witness_confidence: In [0, 1].
        value_transferred: Whether the result reached whoever asked.
    """

    atp_earned: float
    atp_expected: float
    satisfaction: float
    verified_claims: int
    total_claims: int
    witness_confidence: float
    value_transferred: bool

    def __post_init__(self) -> None:
        """Check the ranges; raises ParameterError naming the input."""
        checks = {
            "atp_earned": ("0 or more", 0 <= self.atp_earned < float("inf")),
            "atp_expected": ("more than 0", 0 < self.atp_expected < float("inf")),
            "satisfaction": ("0 to 1", 0 <= self.satisfaction <= 1),
            "total_claims": ("at least 1", self.total_claims >= 1),
            "verified_claims": ("0 to total_claims", 0 <= self.verified_claims <= self.total_claims),
            "witness_confidence": ("0 to 1", 0 <= self.witness_confidence <= 1),
        }
        for name, (expected, holds) in checks.items():
            if not holds:
                raise ParameterError(f"{name}: expected {expected}, got {getattr(self, name)}")

    @property
    def valuation(self) -> float:
        """atp_earned / atp_expected * satisfaction: at least 0, unbounded."""
        return self.atp_earned / self.atp_expected * self.satisfaction

    @property
    def veracity(self) -> float:
        """verified_claims / total_claims * witness_confidence."""
        return self.verified_claims / self.total_claims * self.witness_confidence

    @property
    def validity(self) -> float:
        """1 if the value was transferred, else 0."""
        return 1.0 if self.value_transferred else 0.0

    @property
    def composite(self) -> float:
        """0.3 valuation + 0.35 veracity + 0.35 validity."""
        return 0.3 * self.valuation + 0.35 * self.veracity + 0.35 * self.validity

    def fields(self) -> dict[str, float | bool]:
        """Inputs and outputs, as a trust record has them."""
        return asdict(self) | {
            "valuation": self.valuation,
            "veracity": self.veracity,
            "validity": self.validity,
            "composite": self.composite,
        }


def operational_health(t3: T3, v3: V3, energy_ratio: float) -> float:
    """0.4 T3 + 0.3 V3 + 0.3 energy_ratio; healthy from 0.7."""
    return 0.4 * t3.composite + 0.3 * v3.composite + 0.3 * energy_ratio
