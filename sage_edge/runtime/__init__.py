"""Engines, and the refiners that tick slots with them."""

from sage_edge.runtime.backend import open_backend, precision_of
from sage_edge.runtime.cpu_refiner import CpuRefiner
from sage_edge.runtime.cuda_refiner import CudaRefiner
from sage_edge.runtime.device_loop import CudaLoops, DeviceLoops, DeviceProgram
from sage_edge.runtime.engine import OnnxEngine
from sage_edge.runtime.estimate import Estimate, SizedEstimate
from sage_edge.runtime.refiner import Finished, Follower, Job, Refiner, Unled
from sage_edge.runtime.refiners import LoopChoice, choose_loop, make_ring, open_refiner, open_slots
from sage_edge.runtime.slots import First, Restored, SlotStates
from sage_edge.runtime.state_slots import LONG_STEP_NS

__all__ = [
    "LONG_STEP_NS",
    "CpuRefiner",
    "CudaLoops",
    "CudaRefiner",
    "DeviceLoops",
    "DeviceProgram",
    "Estimate",
    "Finished",
    "First",
    "Follower",
    "Job",
    "LoopChoice",
    "OnnxEngine",
    "Refiner",
    "Restored",
    "SizedEstimate",
    "SlotStates",
    "Unled",
    "choose_loop",
    "make_ring",
    "open_backend",
    "open_refiner",
    "open_slots",
    "precision_of",
]
