"""A reader without a network: it points at the first of some words, and weighs as the graphs should.

Written apart from the plugin and from the graphs, number by number.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from sage_edge import HaltPolicy
from sage_edge.plugins.language import LanguagePlugin

ROWS, LENGTH, COLUMNS = 32, 160, 392


class FakeStep:
    """Reads the likeliest window that was not read.

    Args:
        wanted: Score by piece: what the first such piece of a window is worth.
        nothing: The score of a window that has none.
    """

    backend = "numpy"
    outputs = ("delta", "energy")
    ends: dict = {}  # noqa: RUF012 - an engine's attribute

    def __init__(self, wanted, nothing=-6.0):
        self.wanted = wanted
        self.nothing = nothing
        self.reads = []
        self.inputs = {"ids": ("n", ROWS, LENGTH), "z": ("n", ROWS, COLUMNS)}

    def require(self, inputs, outputs):
        assert set(outputs) <= set(self.outputs)
        assert set(inputs) == {"z", "step_size", "ids", "prior", "place", "facts"}

    def run(self, tensors):
        deltas, energies = [], []
        for number in range(len(tensors["z"])):
            z, ids, prior, place, facts = (
                tensors[name][number] for name in ("z", "ids", "prior", "place", "facts")
            )
            moved = z.copy()
            waiting = [row for row in range(ROWS) if z[row, 0] < 0.5 and prior[row] > 0]
            if waiting:
                row = max(waiting, key=lambda row: prior[row])
                self.reads.append(row)
                moved[row] = self.read(ids[row], facts)
            deltas.append(moved - z)
            stepped = z + tensors["step_size"][number] * (moved - z)
            energies.append([energy_of(stepped, prior, place, facts)])
        return {"delta": np.array(deltas, np.float32), "energy": np.array(energies, np.float32)}

    def read(self, ids, facts):
        begin = int(facts[0])
        found = [
            (at, int(piece)) for at, piece in enumerate(ids) if at >= begin and int(piece) in self.wanted
        ]
        at, piece = found[0] if found else (begin, None)
        score = self.wanted.get(piece, self.nothing)
        row = np.zeros(COLUMNS, np.float32)
        row[:6] = 1, score, at, at, min(max(facts[2] * score + facts[3], -12), 12), math.log(0.95)
        row[8 + int(ids[at]) % 384] = 1.0
        return row


class FakeEnergy:
    """Judges a state."""

    backend = "numpy"
    outputs = ("energy",)
    inputs: dict = {}  # noqa: RUF012 - an engine's attribute
    ends: dict = {}  # noqa: RUF012 - an engine's attribute

    def require(self, inputs, outputs):
        assert set(inputs) == {"z", "prior", "place", "facts"}

    def run(self, tensors):
        states = zip(*(tensors[name] for name in ("z", "prior", "place", "facts")), strict=True)
        return {"energy": np.array([[energy_of(*state)] for state in states], np.float32)}


def energy_of(z, prior, place, facts):
    """One minus the largest posterior of a span, or by what is left to read, by the definition."""
    spans, total = {}, float(facts[1])
    for row in range(len(z)):
        if z[row, 0] < 0.5:
            total += float(prior[row])
            continue
        window = float(prior[row]) * math.exp(float(z[row, 4]))
        weight = window * math.exp(float(facts[4]) * float(z[row, 5]))
        span = (round(float(place[row] + z[row, 2])), round(float(place[row] + z[row, 3])))
        spans[span] = spans.get(span, 0.0) + weight
        total += window
    doubt, limit = 1 - max(spans.values(), default=0.0) / total, float(facts[5])
    offered = [row for row in range(len(z)) if prior[row] > 0]
    left = sum(z[row, 0] < 0.5 for row in offered)
    return doubt if doubt <= limit else limit + (1 - limit) * (left + doubt) / (len(offered) + 1)


def fake_plugin(words=None, config=None, nothing=-6.0):
    """The plugin with the tokenizer that ships, a reader that points at words by score, and plain figures."""
    plugin = LanguagePlugin(config)
    plugin.recipes("fp32")
    step = FakeStep({}, nothing)
    plugin.load({"step": step, "energy": FakeEnergy()})
    halting = HaltPolicy(target_E_norm=0.2, eps=0.005, K=2, max_steps=8)
    plain = {"beta": 0.5, "nowhere": 0.1, "slope": 1.0, "offset": 0.0, "sharpness": 0.5}
    plugin.model = replace(plugin.model, **plain, halting=halting)
    plugin.halting = plugin.configured(halting)
    for word, score in (words or {}).items():
        (piece,) = plugin.model.tokenizer.encode(word, add_special_tokens=False).ids
        step.wanted[piece] = score
    return plugin
