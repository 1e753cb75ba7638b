"""What is refined, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class IRPState:
    """One state of a refinement.

    Attributes:
        x: What is refined: a latent, a span mask, a trajectory; the plugin's own type. Never changed
            in place: a step returns a new state.
        step_idx: Steps taken so far; 0 is the initial state.
        meta: What the plugin carries along with it, such as the encoder's features.
    """

    x: Any
    step_idx: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskContext:
    """What ``init_state`` is told beside the input.

    Attributes:
        stream_id: The stream that the input belongs to; None without one.
        last_answer: The state that answered the stream's last request; None where there is none.
        last_state: The state at which that request stopped, which need not be its best.
    """

    stream_id: str | None = None
    last_answer: IRPState | None = None
    last_state: IRPState | None = None


class Invariants(NamedTuple):
    """The machine-readable names of a plugin's invariants, as the telemetry records them.

    Attributes:
        state_space: What is refined.
        noise_model: How uncertainty lives there.
        energy_fn: What the energy measures.
        energy_units: What one unit of it is.
        noise_schedule: ``used`` where a step adds the noise that its schedule gives, else ``ignored``.
    """

    state_space: str
    noise_model: str
    energy_fn: str
    energy_units: str
    noise_schedule: Literal["used", "ignored"] = "ignored"


@dataclass(frozen=True, slots=True)
class Answer:
    """The decoded answer of one request.

    Attributes:
        array: The answer itself; for a mask uint8 [H, W] of class numbers, for a picture uint8 [H, W] or
            [H, W, 3].
        classes: Names of the class numbers; empty when the answer is no mask.
        palette: One (red, green, blue) for each class; empty when the answer is no mask.
        details: What else the JSON answer says, by name.
    """

    array: NDArray[np.generic]
    classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
