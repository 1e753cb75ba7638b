"""The iterative-refinement primitive: the contract and its pure rules."""

from sage_edge.irp.calibration import TrustTable
from sage_edge.irp.engine import Engine
from sage_edge.irp.latent import Carried, Encoded, LatentPlugin
from sage_edge.irp.plugin import INVARIANT_HEADINGS, IRPPlugin
from sage_edge.irp.recipe import Recipe
from sage_edge.irp.reference import Refinement, refine
from sage_edge.irp.schedule import AnnealedNoise, ConstantNoise, NoiseSchedule
from sage_edge.irp.state import Answer, Invariants, IRPState, TaskContext

__all__ = [
    "INVARIANT_HEADINGS",
    "AnnealedNoise",
    "Answer",
    "Carried",
    "ConstantNoise",
    "Encoded",
    "Engine",
    "IRPPlugin",
    "IRPState",
    "Invariants",
    "LatentPlugin",
    "NoiseSchedule",
    "Recipe",
    "Refinement",
    "TaskContext",
    "TrustTable",
    "refine",
]
