"""The iterative-refinement primitive: the contract and its pure rules."""

from sage_edge.irp.plugin import INVARIANT_HEADINGS, IRPPlugin
from sage_edge.irp.reference import Refinement, refine
from sage_edge.irp.state import Answer, Invariants, IRPState

__all__ = ["INVARIANT_HEADINGS", "Answer", "IRPPlugin", "IRPState", "Invariants", "Refinement", "refine"]
