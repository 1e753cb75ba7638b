"""A plugin's program for the loop on the device, whose step is a TensorRT engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sage_edge.errors import EngineError
from sage_edge.runtime.program import Program
from sage_edge.runtime.tensorrt.engine import Execution, TensorRTEngine


class TensorRTProgram:
    """What a plugin does already, with its step bound to the loop's arrays; a DeviceProgram.

    The step's plans take ``z``, ``step_size`` and each context, and give ``delta`` and ``energy``. States are
    of the type that the plans have.
    """

    def __init__(self, program: Program, step: TensorRTEngine) -> None:
        """Take a plugin's program and its step engine.

        Raises:
            EngineError: The plans' types are not those that a loop can have.
        """
        self.state_shape, self.context_shapes = program.state_shape, program.context_shapes
        self.lo, self.hi = program.lo, program.hi
        self.step_size, self.noise_sigma = program.step_size, program.noise_sigma
        self.example, self.encode = program.example, program.encode
        self.energies, self.decode = program.energies, program.decode
        self.carry_over = program.carry_over
        tensors = next(iter(step.plans.values())).tensors
        self.dtype: np.dtype[Any] = tensors["z"].dtype
        self.energy_terms = int(np.prod(tensors["energy"].shape[1:]))
        self._step = step
        for name, spec in tensors.items():
            expected = np.dtype(np.float32) if name in ("step_size", "energy") else self.dtype
            if spec.dtype != expected or self.dtype not in (np.float16, np.float32):
                raise EngineError(f"step engine: {name}: expected {expected}, got {spec.dtype}")

    def bind_step(self, tensors: Mapping[str, Any]) -> Callable[[int], None]:
        """The plan of the tensors' width, between their addresses.

        Raises:
            EngineError: There is no plan of that width, or TensorRT refuses an address.
        """
        width = tensors["z"].shape[0]
        if width not in self._step.plans:
            raise EngineError(f"step engine: expected a plan of width {width}, got {list(self._step.plans)}")
        with self._step.device.current():
            execution = self._step.plans[width].open()
            execution.bind({name: tensor.pointer for name, tensor in tensors.items()})
        return self._enqueue(execution)

    def _enqueue(self, execution: Execution) -> Callable[[int], None]:
        def enqueue(stream_handle: int) -> None:
            with self._step.device.current():
                execution.enqueue(stream_handle)

        return enqueue
