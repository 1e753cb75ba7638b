"""What a plugin's next steps are worth and cost, learned from the runs that ended."""

from __future__ import annotations

from collections.abc import Sequence

#: A plugin that was never seen counts as PRIOR_RUNS runs that began with a fall of PRIOR_DROP and kept
#: PRIOR_RATIO of it at each step.
PRIOR_RUNS = 4.0
PRIOR_DROP = 0.1
PRIOR_RATIO = 0.7
#: A run's own history weighs as much as one typical step against the plugin's.
OWN_STEPS = 1.0
#: How far a run's own history may scale what is expected of it.
LARGEST_SCALE = 4.0


class Profile:
    """The performance profile of one plugin: expected fall of E_norm and price of each step.

    The fall at step k is the mean over the runs that reached it, shrunk towards a geometric prior; runs
    that converged before count as a fall of 0, since they had no more to give. For one run it is scaled
    by how its own falls compare with the expected ones, shrunk likewise.

    Threads: ``learn`` and ``charge`` on the plugin's worker; readers elsewhere see what was true a moment
    ago.
    """

    def __init__(self, longest: int) -> None:
        """Begin with the prior.

        Args:
            longest: Largest number of steps of a run.
        """
        self._falls = [PRIOR_RUNS * PRIOR_DROP * PRIOR_RATIO**k for k in range(longest)]
        self._runs = [PRIOR_RUNS] * longest
        #: Mean price of a first state and of a step, micro-ATP; 0 before one was charged.
        self.start_uatp = 0.0
        self.step_uatp = 0.0

    def learn(self, E_norm: Sequence[float], *, converged: bool) -> None:
        """Learn from a run that ended.

        Args:
            E_norm: Of its states, the best so far at each: E_norm_0 .. E_norm_n, never rising.
            converged: Whether it ended because there was nothing left to gain.
        """
        taken = len(E_norm) - 1
        for k in range(min(taken, len(self._falls))):
            self._add(k, E_norm[k] - E_norm[k + 1])
        if converged:
            for k in range(taken, len(self._falls)):
                self._add(k, 0.0)

    def charge(self, uatp: float, *, is_start: bool) -> None:
        """Learn the price of a first state or a step, with exponential forgetting."""
        known = self.start_uatp if is_start else self.step_uatp
        price = uatp if known == 0.0 else known + (uatp - known) / 16
        if is_start:
            self.start_uatp = price
        else:
            self.step_uatp = price

    def falls(self, E_norm: Sequence[float], steps: int) -> list[float]:
        """Expected falls of a run's next steps.

        Args:
            E_norm: Best so far at each of its states; empty before its first.
            steps: How many steps it may still take.

        Returns:
            Up to ``steps`` numbers, each >= 0.
        """
        taken = max(len(E_norm) - 1, 0)
        ahead = range(taken, min(taken + steps, len(self._falls)))
        expected = sum(self._mean(k) for k in range(taken))
        own = E_norm[0] - E_norm[-1] if taken else 0.0
        typical = OWN_STEPS * self._mean(0)
        scale = (own + typical) / (expected + typical) if expected + typical > 0 else 1.0
        scale = min(max(scale, 1 / LARGEST_SCALE), LARGEST_SCALE)
        return [scale * self._mean(k) for k in ahead]

    def _add(self, k: int, fall: float) -> None:
        self._falls[k] += fall
        self._runs[k] += 1

    def _mean(self, k: int) -> float:
        return max(self._falls[k] / self._runs[k], 0.0)
