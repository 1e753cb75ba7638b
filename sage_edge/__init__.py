"""An anytime inference server for robots and cameras.

These are the public names; demos and benchmarks use no others.
"""

from sage_edge.config import VERSION as __version__
from sage_edge.config import Settings, load_settings
from sage_edge.errors import SageError
from sage_edge.irp import Answer, Invariants, IRPPlugin, IRPState, Refinement, refine
from sage_edge.orchestrator import HRM, Budget, Result, Ticket, open_hrm
from sage_edge.runtime import Encoded, FirstStates, LatentSlots, SlotProgram, SlotStates

__all__ = [
    "HRM",
    "Answer",
    "Budget",
    "Encoded",
    "FirstStates",
    "IRPPlugin",
    "IRPState",
    "Invariants",
    "LatentSlots",
    "Refinement",
    "Result",
    "SageError",
    "Settings",
    "SlotProgram",
    "SlotStates",
    "Ticket",
    "__version__",
    "load_settings",
    "open_hrm",
    "refine",
]
