"""Networks on an NVIDIA GPU by TensorRT: its module, its plans, and the device that they run on."""

from sage_edge.runtime.tensorrt.backend import TensorRTBackend
from sage_edge.runtime.tensorrt.engine import Execution, LoadedPlan, PlanTensor, TensorRTEngine

__all__ = ["Execution", "LoadedPlan", "PlanTensor", "TensorRTBackend", "TensorRTEngine"]
