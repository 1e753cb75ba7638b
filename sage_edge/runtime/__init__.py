"""Engines, and the refiners that tick slots with them."""

from sage_edge.runtime.cpu_refiner import CpuRefiner, Finished, Job
from sage_edge.runtime.engine import OnnxEngine
from sage_edge.runtime.estimate import Estimate
from sage_edge.runtime.program import Encoded, SlotProgram

__all__ = ["CpuRefiner", "Encoded", "Estimate", "Finished", "Job", "OnnxEngine", "SlotProgram"]
