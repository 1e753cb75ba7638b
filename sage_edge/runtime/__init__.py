"""Engines, and the refiners that tick slots with them."""

from sage_edge.runtime.cpu_refiner import CpuRefiner
from sage_edge.runtime.cuda_refiner import CudaRefiner
from sage_edge.runtime.device_loop import CudaLoops, DeviceLoops, DeviceProgram
from sage_edge.runtime.engine import OnnxEngine
from sage_edge.runtime.estimate import BatchEstimate, Estimate
from sage_edge.runtime.program import Carried, Encoded, SlotProgram
from sage_edge.runtime.refiner import Finished, Follower, Job, Refiner, Unled
from sage_edge.runtime.slots import FirstStates, LatentSlots, Restored, SlotStates

__all__ = [
    "BatchEstimate",
    "Carried",
    "CpuRefiner",
    "CudaLoops",
    "CudaRefiner",
    "DeviceLoops",
    "DeviceProgram",
    "Encoded",
    "Estimate",
    "Finished",
    "FirstStates",
    "Follower",
    "Job",
    "LatentSlots",
    "OnnxEngine",
    "Refiner",
    "Restored",
    "SlotProgram",
    "SlotStates",
    "Unled",
]
