"""The check at the door finds each planted fault, by the line that says what to mend."""

from __future__ import annotations

import numpy as np
import pytest

from sage_edge import Answer, ConstantNoise, Encoded, Invariants, IRPState
from sage_edge.errors import PluginError
from sage_edge.plugins.check import check, check_quickly
from tests.quadratic import QuadraticPlugin
from tests.seed_plugins import Counting, Halving


def failed(plugin):
    """What to mend, by check."""
    return {finding.check: finding.detail for finding in check(plugin) if finding.verdict == "FAIL"}


@pytest.mark.parametrize("plugin", [Halving(), Counting(), QuadraticPlugin()], ids=lambda p: p.name)
def test_sound_plugins_have_nothing_to_mend(plugin):
    assert failed(plugin) == {}
    check_quickly(plugin)


def variant(kind=Halving, doc=Halving.__doc__, **methods):
    return type(kind.__name__, (kind,), {"__doc__": doc, **methods})()


def in_place(self, state, noise_schedule):
    state.x[:] += 0.5 * (state.meta["target"] - state.x)
    return IRPState(state.x, state.step_idx + 1, state.meta)


class Remembering(Halving):
    """Keeps the request in the plugin."""

    __doc__ = Halving.__doc__

    def init_state(self, x0, task_ctx):
        self.steps = 0
        return super().init_state(x0, task_ctx)

    def step(self, state, noise_schedule):
        self.steps += 1
        moved = super().step(state, noise_schedule)
        return IRPState(moved.x / self.steps, moved.step_idx, moved.meta)


def worn(self, state):
    self.asked = getattr(self, "asked", 0) + 1
    return float(np.mean(state.x**2)) + self.asked


def kicked(self, state):
    return IRPState(np.abs(state.x - 1.0), state.step_idx, state.meta)


def dice(self, x0, task_ctx):
    return IRPState(np.random.default_rng().random(4), 0, {"target": x0})


#: By what is wrong: the plugin, the check that finds it, and words of what it says.
FAULTS = {
    "no docstring": (variant(doc="Halves."), "docstring", "«State space: …»"),
    "no invariants": (variant(invariants=Invariants("", "gaussian", "d", "u")), "invariants", "state_space"),
    "no example": (
        variant(example=lambda self: 1 / 0),
        "example",
        "halving.example: raised ZeroDivisionError",
    ),
    "raises": (variant(step=lambda self, s, n: {}["x"]), "one step", "halving.step: raised KeyError: 'x'"),
    "no state": (variant(init_state=lambda self, x0, c: x0), "one step", "expected an IRPState, got ndarray"),
    "step not counted": (variant(step=lambda self, s, n: s), "one step", "expected step_idx 1, got 0"),
    "energy is an array": (variant(energy=lambda self, s: s.x), "one step", "expected a float, got ndarray"),
    "energy is NaN": (variant(energy=lambda self, s: np.nan), "one step", "energy: is not a number"),
    "energy is not pure": (variant(energy=worn), "one step", "it is not pure"),
    "step changes its input": (variant(step=in_place), "one step", "step: changes state.x"),
    "projection kicks": (variant(project=kicked), "one step", "projecting twice moves the state again"),
    "first state is thrown": (variant(init_state=dice), "one step", "init_state: the same input twice"),
    "feasible is a number": (variant(feasible=lambda self, s: 1.0), "one step", "expected True or False"),
    "an unknown reason": (variant(halt=lambda self, h, s=None: "tired"), "one step", "got 'tired'"),
    "no answer": (variant(decode=lambda self, s: {"x": 1}), "one step", "expected an Answer or an array"),
    "details that JSON has not": (
        variant(decode=lambda self, s: Answer(s.x, details={"said": np.float32(1)})),
        "one step",
        "decode: details: expected what JSON has",
    ),
    "an answer of objects": (
        variant(decode=lambda self, s: np.array([{}])),
        "one step",
        "halving.decode: expected an array of numbers, got object",
    ),
    "an answer that is a list": (
        variant(decode=lambda self, s: Answer([1, 2])),
        "one step",
        "expected an Answer or an array, got list",
    ),
    "promises too much": (
        variant(trust=lambda self, E: 2.0),
        "one step",
        "trust: expected 0 to 1, got 2.0",
    ),
    "promises a word": (variant(trust=lambda self, E: "high"), "one step", "halving.trust: expected a float"),
    "a word for an energy": (
        variant(E_norm_for=lambda self, q: None),
        "one step",
        "E_norm_for: expected",
    ),
    "a size that is an attribute": (
        variant(input_size=64),
        "one step",
        "halving.input_size: raised TypeError",
    ),
    "says what JSON has not": (
        variant(emit_telemetry=lambda self, s, h: {"own": object()}),
        "one step",
        "emit_telemetry.own: expected null",
    ),
    "shares state": (Remembering(), "requests are apart", "keep what belongs to a request in its IRPState"),
    "lies about its noise": (
        variant(invariants=Invariants("v", "g", "d", "u", "used")),
        "noise schedule",
        "is used; it is ignored",
    ),
    "noise that helps": (
        variant(perturb=lambda self, s, sigma, rng: IRPState(s.meta["target"], s.step_idx, s.meta)),
        "noise raises the energy",
        "does not raise the energy",
    ),
    "noise of its own dice": (
        variant(perturb=lambda self, s, sigma, rng: IRPState(np.random.rand(4), s.step_idx, s.meta)),
        "branch",
        "take every random number from rng",
    ),
    "foretells too much": (
        variant(QuadraticPlugin, advance=lambda self, z, c, size: (c["target"] - z, 0 * z)),
        "successor's energy",
        "advance: foretells the energy 0,",
    ),
    "another shape": (
        variant(
            QuadraticPlugin, encode=lambda self, xs: Encoded(np.zeros((1, 3)), {"target": xs}, np.ones(1))
        ),
        "one step",
        r"quadratic.encode: z: expected shape [1, 6], got [1, 3]",
    ),
    "another context": (
        variant(QuadraticPlugin, encode=lambda self, xs: Encoded(np.zeros((1, 6)), {}, np.ones(1))),
        "one step",
        "quadratic.encode: expected context ['target'], got []",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_the_line_says_what_to_mend(fault):
    plugin, check_name, words = FAULTS[fault]
    found = failed(plugin)
    assert words in found.get(check_name, ""), found


@pytest.mark.parametrize("fault", [name for name, (_, where, _) in FAULTS.items() if where == "one step"])
def test_what_cannot_take_a_step_is_refused_at_the_start_too(fault):
    plugin, _, words = FAULTS[fault]
    with pytest.raises(PluginError) as refused:
        check_quickly(plugin)
    assert words in f"{refused.value}: {refused.value.__cause__}"


def test_float64_and_other_layouts_are_converted_and_nothing_to_mend():
    def encode(self, inputs):
        z, context, terms = QuadraticPlugin.encode(self, inputs)
        return Encoded(z.astype(float)[:, ::-1], {"target": np.asfortranarray(context["target"])}, terms)

    def advance(self, z, context, step_size):
        assert z.dtype == np.float32
        assert z.flags.c_contiguous
        delta, terms = QuadraticPlugin.advance(self, z, context, step_size)
        return delta.astype(float), terms.mean(axis=1)

    assert failed(variant(QuadraticPlugin, encode=encode, advance=advance)) == {}


def test_steps_that_no_deadline_can_wait_for_are_noted(monkeypatch):
    (timed,) = [finding for finding in check(variant()) if finding.check == "time"]
    assert timed.verdict == "ok"
    monkeypatch.setattr("sage_edge.plugins.check.SLOW_STEP_S", 0.0)
    (timed,) = [finding for finding in check(variant()) if finding.check == "time"]
    assert timed.verdict == "note"
    assert "one step, which is long here" in timed.detail


def test_a_schedule_that_is_used_is_seen():
    def noisy(self, state, noise_schedule):
        moved = Halving.step(self, state, noise_schedule)
        rng = np.random.default_rng(state.step_idx)
        x = moved.x + 1e-3 * noise_schedule(state.step_idx) * rng.standard_normal(4)
        return IRPState(x, moved.step_idx, moved.meta)

    plugin = variant(
        step=noisy,
        invariants=Invariants("v", "g", "d", "u", "used"),
        noise_schedule=ConstantNoise(0.1),
    )
    assert failed(plugin) == {}
