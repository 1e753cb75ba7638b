"""The orchestrator (H): queue, budgets, slots, answers. No HTTP, no CUDA."""

from sage_edge.orchestrator.allocation import POLICIES
from sage_edge.orchestrator.hrm import HRM, open_hrm
from sage_edge.orchestrator.ledger import Ledger
from sage_edge.orchestrator.request import LARGEST_BUDGET, MOST_BRANCHES, Budget, Entry, Result, Ticket
from sage_edge.orchestrator.scene import Scene

__all__ = [
    "HRM",
    "LARGEST_BUDGET",
    "MOST_BRANCHES",
    "POLICIES",
    "Budget",
    "Entry",
    "Ledger",
    "Result",
    "Scene",
    "Ticket",
    "open_hrm",
]
