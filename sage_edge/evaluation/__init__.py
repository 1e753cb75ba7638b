"""How good a vision model is on labelled frames, what its early stop saves, and what its trust is worth."""

from sage_edge.evaluation.labelled import Labelled, LabelledFrame, find_labelled
from sage_edge.evaluation.measure import evaluate, measure
from sage_edge.evaluation.timing import time_slots

__all__ = ["Labelled", "LabelledFrame", "evaluate", "find_labelled", "measure", "time_slots"]
