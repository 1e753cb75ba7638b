"""Engines, and the refiners that tick slots with them."""

from sage_edge.runtime.cpu_refiner import CpuRefiner, Finished, Job
from sage_edge.runtime.cuda_refiner import CudaRefiner, DeviceProgram, open_loop
from sage_edge.runtime.engine import OnnxEngine
from sage_edge.runtime.estimate import Estimate
from sage_edge.runtime.program import Encoded, SlotProgram
from sage_edge.runtime.slots import FirstStates, LatentSlots, SlotStates

__all__ = [
    "CpuRefiner",
    "CudaRefiner",
    "DeviceProgram",
    "Encoded",
    "Estimate",
    "Finished",
    "FirstStates",
    "Job",
    "LatentSlots",
    "OnnxEngine",
    "SlotProgram",
    "SlotStates",
    "open_loop",
]
