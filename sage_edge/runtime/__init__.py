"""Engines, and the refiners that tick slots with them."""

from sage_edge.runtime.cpu_refiner import CpuRefiner, Finished, Follower, Job
from sage_edge.runtime.cuda_refiner import CudaRefiner, DeviceProgram, open_loop
from sage_edge.runtime.engine import OnnxEngine
from sage_edge.runtime.estimate import BatchEstimate, Estimate
from sage_edge.runtime.program import Encoded, SlotProgram
from sage_edge.runtime.slots import Carried, FirstStates, LatentSlots, Restored, SlotStates

__all__ = [
    "BatchEstimate",
    "Carried",
    "CpuRefiner",
    "CudaRefiner",
    "DeviceProgram",
    "Encoded",
    "Estimate",
    "Finished",
    "FirstStates",
    "Follower",
    "Job",
    "LatentSlots",
    "OnnxEngine",
    "Restored",
    "SlotProgram",
    "SlotStates",
    "open_loop",
]
