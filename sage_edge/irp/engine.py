"""What a plugin is given for a recipe: a loaded network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sage_edge.errors import EngineError

Float32: TypeAlias = NDArray[np.float32]
Tensors: TypeAlias = Mapping[str, Float32]
#: Puts one pass of a network onto a raw CUDA stream, between arrays that were bound before.
Enqueue: TypeAlias = Callable[[int], None]


class TensorSpec(NamedTuple):
    """One end of a network that can be bound.

    Attributes:
        shape: Of one row, without the batch.
        dtype: Of the numbers on the device.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Engine(Protocol):
    """A network with named inputs and outputs that share their first axis, the batch.

    Threads: ``run`` may be called from several threads.
    """

    @property
    def backend(self) -> str:
        """What runs it, such as "onnxruntime-cpu"."""

    @property
    def inputs(self) -> Mapping[str, tuple[Any, ...]]:
        """Shape of each input; its first entry names the batch."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs."""

    @property
    def ends(self) -> Mapping[str, TensorSpec]:
        """What ``bind`` wants, by name; empty for an engine that works on host arrays alone."""

    def require(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Check the names of the network's ends.

        Raises:
            EngineError: A name is missing or unexpected.
        """

    def run(self, tensors: Tensors) -> dict[str, Float32]:
        """Run the network on float32 arrays; returns new arrays by name."""

    def bind(self, tensors: Mapping[str, Any]) -> Enqueue:
        """Fix the network between arrays on its device, which their owner keeps alive and in place.

        Args:
            tensors: One array for each of ``ends``, batch included, with ``__dlpack__`` and
                ``__cuda_array_interface__``.

        Returns:
            What enqueues one pass. It can be captured into a CUDA graph once it has run.

        Raises:
            EngineError: There is nothing to bind, a name is missing, or an array does not fit.
        """


def require_ends(engine: Engine, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """What every engine's ``require`` does."""
    if set(engine.inputs) != set(inputs) or not set(outputs) <= set(engine.outputs):
        raise EngineError(
            f"engine: expected inputs {sorted(inputs)} and outputs {sorted(outputs)}, "
            f"got {sorted(engine.inputs)} and {sorted(engine.outputs)}"
        )
