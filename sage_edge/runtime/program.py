"""What a refiner needs of a plugin to run many of its refinements in slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


class Carried(NamedTuple):
    """An answer that stays with its stream.

    Attributes:
        first: float32 [*state_shape], the first state that each part of ``z`` was refined from.
        z: float32 [*state_shape], the state that answered.
    """

    first: Float32
    z: Float32


#: Lays what is still good of a stream's last answer over a request's first state; None where nothing is.
CarryOver = Callable[[Float32, Carried], "Carried | None"]


class Program(Protocol):
    """A plugin's refinement with a batch axis, but for its step. Stateless: arrays in, arrays out.

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

    @property
    def carry_over(self) -> CarryOver | None:
        """How a stream's request begins where the last one ended; None: each begins anew."""

    def example(self) -> Any:
        """A prepared input to warm the engines up with."""

    def encode(self, inputs: Sequence[Any]) -> Encoded:
        """The first states of prepared inputs."""

    def energies(self, z: Float32, context: Mapping[str, Float32]) -> Float32:
        """Energy terms float32 [n, terms] of n states, as ``advance`` gives them of their successors."""

    def decode(self, z: Float32, inputs: Sequence[Any]) -> list[Any]:
        """The answers of n states."""


class SlotProgram(Program, Protocol):
    """A program whose step takes host arrays."""

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


def first_states(program: Program, inputs: Sequence[Any], seeds: Sequence[int | None] = ()) -> Encoded:
    """Encode prepared inputs; a noisy start costs one run of the energy engine more.

    Args:
        program: Whose first states.
        inputs: Prepared inputs.
        seeds: For each input None, or the seed of noise of the plugin's noise model to start from.
    """
    encoded = program.encode(inputs)
    noisy = {row: seed for row, seed in enumerate(seeds) if seed is not None}
    if not noisy:
        return encoded
    z, terms = encoded.z.copy(), encoded.energy_terms.copy()
    for row, seed in noisy.items():
        noise = np.random.default_rng(seed).standard_normal(program.state_shape, np.float32)
        z[row] = np.clip(z[row] + np.float32(program.noise_sigma) * noise, program.lo, program.hi)
    rows = list(noisy)
    context = {name: array[rows] for name, array in encoded.context.items()}
    terms[rows] = program.energies(z[rows], context)
    return Encoded(z, encoded.context, terms)
