"""LRC: how stiff the budget policy is (docs/AUDIT.md#how-trust-is-earned; an analogy, and no physics)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sage_edge.errors import ConfigError

_ALPHA, _BETA, _GAMMA = 0.6, 0.8, 0.5


@dataclass(frozen=True, slots=True)
class LRC:
    """Three knobs in [0, 1], and what follows from them.

    What sage_edge takes from it: ``L`` is the hysteresis on budgets and weights, ``R`` the least quality that
    counts as success, ``C`` the share of a budget that branches may use. The rest is derived and recorded.

    Attributes:
        policy_id: Name of the profile.
        L: Resistance to change.
        R: Filter of quality.
        C: Room for experiment.
        quota_ref: The quota that the policy governs.
    """

    policy_id: str
    L: float
    R: float
    C: float
    quota_ref: str = "sage-edge/atp"

    def __post_init__(self) -> None:
        """Check the knobs; raises ConfigError naming the one that is out of range."""
        for name in ("L", "R", "C"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"lrc {name}: expected 0 to 1, got {getattr(self, name)}")

    @property
    def damping(self) -> float:
        """(0.6 L + 0.8 R) / (1 + 0.5 C)."""
        return (_ALPHA * self.L + _BETA * self.R) / (1.0 + _GAMMA * self.C)

    @property
    def omega0(self) -> float:
        """1 / sqrt(1e-6 + L C)."""
        return 1.0 / math.sqrt(1e-6 + self.L * self.C)

    @property
    def threshold(self) -> float:
        """Of approval: 0.50 + 0.35 L + 0.15 R - 0.10 C, in [0.50, 0.95]."""
        return _clamp(0.50 + 0.35 * self.L + 0.15 * self.R - 0.10 * self.C, 0.50, 0.95)

    @property
    def review_days(self) -> int:
        """3 + 10 L + 4 damping, rounded."""
        return round(3 + 10 * self.L + 4 * self.damping)

    @property
    def quorum(self) -> int:
        """1 + 2 L + R, rounded up."""
        return math.ceil(round(1 + 2 * self.L + self.R, 9))  # 1 + 2 * 0.3 + 0.4 is 2.0000000000000004

    @property
    def cost(self) -> int:
        """Tokens: 50 (0.5 + 0.7 L + 0.3 R), rounded."""
        return round(50 * (0.5 + 0.7 * self.L + 0.3 * self.R))

    @property
    def reject_penalty(self) -> float:
        """0.10 + 0.70 R, in [0.10, 0.95]."""
        return _clamp(0.10 + 0.70 * self.R, 0.10, 0.95)

    @property
    def fast_track(self) -> float:
        """0.20 (1 - L)."""
        return 0.20 * (1.0 - self.L)

    def context(self) -> dict[str, str | float]:
        """Knobs and what the policy asks for, as the record of a step has them."""
        names = ("policy_id", "L", "R", "C", "quota_ref", "threshold", "quorum", "cost")
        return {name: getattr(self, name) for name in names}

    def fields(self) -> dict[str, str | float]:
        """Knobs and derivations, as a trust record has them."""
        return {
            "policy_id": self.policy_id,
            "L": self.L,
            "R": self.R,
            "C": self.C,
            "quota_ref": self.quota_ref,
            "damping": self.damping,
            "omega0": self.omega0,
            "threshold": self.threshold,
            "review_days": self.review_days,
            "quorum": self.quorum,
            "cost": self.cost,
            "reject_penalty": self.reject_penalty,
            "fast_track": self.fast_track,
        }


#: By the setting ``lrc_profile``. The protocol leaves three knobs open: C of safety, L of learning and R of
#: performance are ours.
LRC_PROFILES = {
    "edge": LRC("edge", L=0.3, R=0.7, C=0.5),
    "safety": LRC("safety", L=0.9, R=0.9, C=0.1),
    "learning": LRC("learning", L=0.3, R=0.5, C=0.7),
    "performance": LRC("performance", L=0.3, R=0.5, C=0.8),
}


def _clamp(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)
