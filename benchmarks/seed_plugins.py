"""Four plugins of the protocol's own methods, each with overrides of its own, that count their calls.

Each tells its counts in its telemetry, so that they can be compared with what the replies say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sage_edge import DOCUMENT, TEXT, Answer, HaltPolicy, Invariants, IRPPlugin, IRPState, TaskContext


class Counted(IRPPlugin):
    """What the four share: a target that a step comes nearer to, and the counts.

    State space: float64 [n].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target.
    Coherence contribution: the fall of that distance.
    """

    invariants = Invariants("vector", "gaussian", "mean-squared-distance", "squared units")
    halting = HaltPolicy(K=2, eps=1e-3, max_steps=12)

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.calls: Counter[str] = Counter()

    def init_state(self, x0: Any, task_ctx: TaskContext) -> IRPState:
        return IRPState(np.zeros_like(x0), 0, {"target": x0})

    def energy(self, state: IRPState) -> float:
        self.calls["energy"] += 1
        return float(np.mean((state.x - state.meta["target"]) ** 2))

    def step(self, state: IRPState, noise_schedule: Any) -> IRPState:
        self.calls["step"] += 1
        moved = state.x + 0.5 * (state.meta["target"] - state.x)
        return IRPState(moved, state.step_idx + 1, state.meta)

    def emit_telemetry(self, state: IRPState, history: Sequence[float]) -> dict[str, Any]:
        self.calls["emit_telemetry"] += 1
        return {**super().emit_telemetry(state, history), "calls": dict(self.calls)}


class Frame(Counted):
    """The mean colours of a frame, projected between 0 and 200.

    State space: float64 [3].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target.
    Coherence contribution: the fall of that distance.
    """

    def prepare(self, x: Any) -> Any:
        self.calls["prepare"] += 1
        return np.asarray(x, float).reshape(-1, x.shape[-1]).mean(axis=0)

    def project(self, state: IRPState) -> IRPState:
        self.calls["project"] += 1
        return IRPState(np.clip(state.x, 0.0, 200.0), state.step_idx, state.meta)


class Document(Counted):
    """The numbers of a document; halts by itself after four steps.

    State space: float64 [n].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target.
    Coherence contribution: the fall of that distance.
    """

    takes = DOCUMENT

    def prepare(self, x: Any) -> Any:
        self.calls["prepare"] += 1
        return np.asarray(x["numbers"], float)

    def example(self) -> Any:
        return np.ones(3)

    def halt(self, history: Sequence[float], state: IRPState | None = None) -> str | None:
        self.calls["halt"] += 1
        return "confidence" if len(history) > 4 else None


class Text(Counted):
    """How often a text has each vowel; feasible once it is within a tenth of it.

    State space: float64 [5].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target.
    Coherence contribution: the fall of that distance.
    """

    takes = TEXT
    halting = HaltPolicy(K=2, eps=1e-9, max_steps=20, halt_when_feasible=True, gap_tolerance=0.1)

    def prepare(self, x: Any) -> Any:
        self.calls["prepare"] += 1
        return np.array([x.count(vowel) for vowel in "aeiou"], float)

    def example(self) -> Any:
        return np.ones(5)

    def feasible(self, state: IRPState) -> bool:
        self.calls["feasible"] += 1
        return bool(np.abs(state.x - state.meta["target"]).max() < 0.1)

    def gap(self, state: IRPState) -> float:
        self.calls["gap"] += 1
        return 0.05


class Stream(Counted):
    """Follows a stream of frames from where the last answer was; says what it is worth.

    State space: float64 [3].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the target.
    Coherence contribution: the fall of that distance.
    """

    def prepare(self, x: Any) -> Any:
        self.calls["prepare"] += 1
        return np.asarray(x, float).reshape(-1, x.shape[-1]).mean(axis=0)

    def init_state(self, x0: Any, task_ctx: TaskContext) -> IRPState:
        last = task_ctx.last_answer
        self.calls["warm starts"] += last is not None
        return IRPState(np.zeros_like(x0) if last is None else last.x, 0, {"target": x0})

    def decode(self, state: IRPState) -> Answer:
        self.calls["decode"] += 1
        return Answer(state.x, details={"colour": state.x.round(1).tolist()})

    def trust(self, E_norm: float) -> float:
        self.calls["trust"] += 1
        return 1 / (1 + E_norm)
