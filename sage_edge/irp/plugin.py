"""The contract that every plugin keeps: docs/IRP_PROTOCOL.md#1-the-contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from sage_edge import native
from sage_edge.irp.state import Invariants, IRPState

#: Headings that a plugin's docstring must carry; the contract test reads them.
INVARIANT_HEADINGS = ("State space", "Noise model", "Energy", "Coherence contribution")


class IRPPlugin(ABC):
    """One modality: its state, noise model, energy, step, projection and halting.

    A plugin holds no per-request state: everything that belongs to a request is in its IRPState, so
    two requests never share a mutable object. Its docstring states the four invariants under the
    headings of INVARIANT_HEADINGS. Notes for authors: docs/IRP_PROTOCOL.md#6-writing-a-plugin.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "0"
    invariants: ClassVar[Invariants]
    #: What ``prepare`` is given: an image or tensor, or a problem as a document of named values.
    takes: ClassVar[Literal["frame", "document"]] = "frame"
    #: K = 3 and eps = 1e-4 are the protocol's defaults; each plugin sets its own.
    halting: native.HaltPolicy = native.HaltPolicy()
    noise_schedule: float = 0.0

    @abstractmethod
    def init_state(self, x0: Any, task_ctx: Any = None) -> IRPState:
        """The first state of a request, from its prepared input and its context."""

    @abstractmethod
    def energy(self, state: IRPState) -> float:
        """Energy of a state, lower is better. Pure; called once for each state."""

    @abstractmethod
    def step(self, state: IRPState, noise_schedule: float) -> IRPState:
        """One refinement: a new state with ``step_idx`` one higher."""

    def project(self, state: IRPState) -> IRPState:
        """Put a state back inside the constraints; must hold whenever the loop stops."""
        return state

    def feasible(self, state: IRPState) -> bool:
        """Whether a state satisfies the plugin's constraints."""
        return True

    def gap(self, state: IRPState) -> float:
        """How far a state may be from the best one, relative to its cost; 0 where no rule asks for it."""
        return 0.0

    def halt(self, history: Sequence[float], state: IRPState | None = None) -> str | None:
        """The reason to stop after energies E_0 .. E_n, or None to go on. Decides, changes nothing.

        Args:
            history: Energies of all states so far.
            state: The one that the last energy belongs to; without it, it counts as feasible, with no gap.
        """
        if state is None:
            return native.halt_reason(history, self.halting)
        return native.halt_reason(history, self.halting, feasible=self.feasible(state), gap=self.gap(state))

    def perturb(self, state: IRPState, sigma: float, rng: np.random.Generator) -> IRPState:
        """The state with noise of the plugin's noise model added: Gaussian of standard deviation sigma."""
        noise = sigma * rng.standard_normal(np.shape(state.x))
        return IRPState((state.x + noise).astype(state.x.dtype), state.step_idx, state.meta)

    def emit_telemetry(self, state: IRPState, history: Sequence[float]) -> dict[str, Any]:
        """A record that the telemetry schema accepts. Reports; never decides, never recomputes.

        ``time_ms`` and ``ATP_spent`` are taken from ``state.meta``, where the loop that ran puts them.
        """
        trust = native.trust_statistics(history)
        return {
            "plugin": self.name,
            "step_idx": state.step_idx,
            "E": _finite(history[-1]),
            "dE": _finite(history[-1] - history[-2]) if len(history) > 1 else None,
            "halt_reason": self.halt(history, state),
            "budget": {
                "ATP_spent": float(state.meta.get("ATP_spent", 0.0)),
                "time_ms": float(state.meta.get("time_ms", 0.0)),
            },
            "trust": {
                "monotonicity_ratio": trust.monotonicity_ratio,
                "dE_variance": trust.dE_variance,
                "n_dE": trust.n,
            },
        }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
