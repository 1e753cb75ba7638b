"""TensorRT as a backend: plans that fit this machine, built ahead of time, loaded at the start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sage_edge.clock import Clock, SystemClock
from sage_edge.config import Settings
from sage_edge.irp import Recipe
from sage_edge.runtime.building import Built, Machine, PlanBuilder
from sage_edge.runtime.plans import PlanStore
from sage_edge.runtime.tensorrt.api import TensorRT, open_tensorrt
from sage_edge.runtime.tensorrt.build import BUILDER_VERSION, build_plan
from sage_edge.runtime.tensorrt.device import Device, open_device
from sage_edge.runtime.tensorrt.engine import LoadedPlan, TensorRTEngine


class TensorRTBackend:
    """The installed TensorRT, one GPU, and the folder of plans.

    Threads: ``open`` from one at a time; ``builder`` has its own lock.
    """

    default_precision = "fp16"
    builder: PlanBuilder

    def __init__(self, tensorrt: TensorRT, device: Device, store: PlanStore, clock: Clock) -> None:
        self.name = tensorrt.label
        self.builder = PlanBuilder(
            store,
            Machine(tensorrt.label, device.sm, BUILDER_VERSION, self._build),
            clock,
        )
        self._tensorrt = tensorrt
        self._device = device

    @classmethod
    def from_settings(cls, settings: Settings) -> TensorRTBackend:
        """What this machine has.

        Raises:
            EngineError: TensorRT, pycuda, the driver or the GPU is missing.
        """
        return cls(open_tensorrt(), open_device(), PlanStore(Path(settings.engine_dir)), SystemClock())

    def open(self, recipe: Recipe) -> TensorRTEngine:
        """The engine of a recipe, from its plans. Never builds.

        Raises:
            EngineError: A plan is missing, damaged, or was built from or for something else.
        """
        with self._device.current():
            plans = {
                wanted.key.width: LoadedPlan(
                    self._tensorrt,
                    self._device,
                    self.builder.store.load(wanted.name, wanted.key),
                    wanted.name,
                )
                for wanted in self.builder.wanted([recipe])
            }
        return TensorRTEngine(plans, self._device, backend=self.name, recipe=recipe)

    def _build(self, onnx: bytes, width: int, advance: Callable[[float], bool], timing_cache: bytes) -> Built:
        with self._device.current():
            return build_plan(self._tensorrt, onnx, width, advance, timing_cache)
