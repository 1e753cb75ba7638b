"""What a refiner needs of a plugin to run many of its refinements in slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


class Encoded(NamedTuple):
    """The first states of n requests.

    Attributes:
        z: float32 [n, *state_shape].
        context: What each step reads besides z, by name: float32 [n, *shape].
        energy_terms: float32 [n, terms]; a state's energy is the mean of its row.
    """

    z: Float32
    context: Mapping[str, Float32]
    energy_terms: Float32


class SlotProgram(Protocol):
    """A plugin's refinement with a batch axis. Stateless: arrays in, arrays out.

    The refiner applies ``z <- clip(z + step_size * delta, lo, hi)`` itself.

    Attributes:
        noise_sigma: Standard deviation of the noise model, in units of z.
    """

    state_shape: tuple[int, ...]
    context_shapes: Mapping[str, tuple[int, ...]]
    lo: float
    hi: float
    step_size: float
    noise_sigma: float

    def example(self) -> Any:
        """A prepared input to warm the engines up with."""

    def encode(self, inputs: Sequence[Any]) -> Encoded:
        """The first states of prepared inputs."""

    def advance(
        self, z: Float32, context: Mapping[str, Float32], step_size: Float32
    ) -> tuple[Float32, Float32]:
        """Direction and successor's energy of n states.

        Args:
            z: float32 [n, *state_shape].
            context: float32 [n, ...] by name.
            step_size: float32 [n].

        Returns:
            delta float32 [n, *state_shape], and float32 [n, terms], the energy terms of
            ``clip(z + step_size * delta, lo, hi)``.
        """

    def energies(self, z: Float32, context: Mapping[str, Float32]) -> Float32:
        """Energy terms float32 [n, terms] of n states, as ``advance`` gives them of their successors."""

    def decode(self, z: Float32, inputs: Sequence[Any]) -> list[Any]:
        """The answers of n states."""
