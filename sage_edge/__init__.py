"""An anytime inference server for robots and cameras.

These are the public names; plugins, demos and benchmarks use no others, but for ``sage_edge.errors``.
"""

from sage_edge.config import VERSION as __version__
from sage_edge.config import Settings, load_settings
from sage_edge.errors import SageError
from sage_edge.inputs import DOCUMENT, FRAME, TEXT, InputKind, Limits, Part
from sage_edge.irp import (
    AnnealedNoise,
    Answer,
    Carried,
    ConstantNoise,
    Encoded,
    Engine,
    Invariants,
    IRPPlugin,
    IRPState,
    LatentPlugin,
    NoiseSchedule,
    Recipe,
    Refinement,
    TaskContext,
    TrustTable,
    refine,
)
from sage_edge.irp.engine import TensorSpec
from sage_edge.native import HaltPolicy
from sage_edge.orchestrator import HRM, Budget, Entry, Result, Ticket, open_hrm
from sage_edge.plugins import open_plugin
from sage_edge.plugins.check import check
from sage_edge.runtime import OnnxEngine

__all__ = [
    "DOCUMENT",
    "FRAME",
    "HRM",
    "TEXT",
    "AnnealedNoise",
    "Answer",
    "Budget",
    "Carried",
    "ConstantNoise",
    "Encoded",
    "Engine",
    "Entry",
    "HaltPolicy",
    "IRPPlugin",
    "IRPState",
    "InputKind",
    "Invariants",
    "LatentPlugin",
    "Limits",
    "NoiseSchedule",
    "OnnxEngine",
    "Part",
    "Recipe",
    "Refinement",
    "Result",
    "SageError",
    "Settings",
    "TaskContext",
    "TensorSpec",
    "Ticket",
    "TrustTable",
    "__version__",
    "check",
    "load_settings",
    "open_hrm",
    "open_plugin",
    "refine",
]
