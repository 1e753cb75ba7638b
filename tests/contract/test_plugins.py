"""Every plugin keeps the contract, and both ways of running it agree."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sage_edge import native, refine
from sage_edge.control import PlanProblem
from sage_edge.plugins.check import check
from sage_edge.plugins.control import ControlPlugin
from sage_edge.runtime import CpuRefiner, Job, open_slots
from sage_edge.runtime.state_slots import StateSlots
from tests.fake_reader import fake_plugin
from tests.quadratic import QuadraticPlugin
from tests.sage_edge.control.worlds import slalom


def control_problems():
    """Two quadratic programs of which one has no solution, an MPC, and a plan."""
    qp = {"kind": "qp", "P": [[2.0, 0.5], [0.5, 1.0]], "q": [-2.0, -5.0], "A": [[1.0, 1.0]], "u": [1.0]}
    mpc = {"kind": "mpc", "A": [[1.0, 0.1], [0.0, 1.0]], "B": [[0.005], [0.1]], "Q": [1.0, 0.1], "R": [0.1]}
    mpc |= {"N": 10, "x0": [1.0, 0.2], "u_min": [-1.0], "u_max": [1.0], "x_min": [None, -0.3]}
    plugin = ControlPlugin()
    documents = [qp, mpc, qp | {"l": [2.0], "u": [None], "ub": [0.5, 0.5]}]
    return [PlanProblem(slalom()), *map(plugin.prepare, documents)]


def language_questions(plugin):
    """Three that a manual answers by and by, and one that it does not."""
    manual = ["The bolts take nine metres.", "The camera weighs eighty grams.", "Charge it for six hours."]
    asked = [
        "What do the bolts take?",
        "What does the camera weigh?",
        "How long to charge it?",
        "Who painted it?",
    ]
    return [plugin.prepare({"question": question, "text": manual * 4}) for question in asked]


@pytest.fixture(params=["quadratic", "vision", "control", "language"])
def case(request):
    """A plugin with four different prepared inputs."""
    rng = np.random.default_rng(7)
    if request.param == "quadratic":
        plugin = QuadraticPlugin()
        return plugin, [plugin.prepare(rng.normal(0, scale, 6)) for scale in (0.1, 1, 5, 200)]
    if request.param == "control":
        return ControlPlugin(), control_problems()
    if request.param == "language":
        plugin = fake_plugin({"nine": 3.0, "eighty": 2.0, "six": 2.0}, nothing=-1.0)
        return plugin, language_questions(plugin)
    plugin = request.getfixturevalue("vision")
    frame = request.getfixturevalue("nuclei_frame")
    frames = [frame, frame[::-1], frame // 3, np.roll(frame, 40, axis=1)]
    return plugin, [plugin.prepare(np.ascontiguousarray(f)) for f in frames]


def run_in_slots(plugin, inputs, slots):
    """Energies, reasons and best steps of each input, from the mailbox of a slot refiner."""
    ring = native.Ring(1024)
    reader = native.RingReader(ring)
    states = open_slots(plugin, capacity=slots, threads=1, history=0)
    refiner = CpuRefiner(states, plugin.example, ring=ring, plugin_number=0, now_ns=time.monotonic_ns)
    waiting = [Job(number, x0, plugin.halting) for number, x0 in enumerate(inputs)]
    finished = {}
    while waiting or refiner.live:
        jobs, waiting = waiting[: refiner.free], waiting[refiner.free :]
        for done in refiner.admit(jobs) + refiner.tick():
            finished[done.job.run_id] = done
    records = reader.drain(1024)
    energies = [records["E"][records["run_id"] == number] for number in range(len(inputs))]
    return energies, [finished[number] for number in range(len(inputs))]


@pytest.mark.parametrize("slots", [1, 3, 4])
def test_slots_and_the_reference_loop_take_the_same_steps_to_the_same_energies(case, slots):
    plugin, inputs = case
    energies, finished = run_in_slots(plugin, inputs, slots)
    for x0, slot_energies, done in zip(inputs, energies, finished, strict=True):
        reference = refine(plugin, x0)
        assert done.summary.halt_reason == reference.halt_reason
        assert done.summary.step_idx == reference.last.step_idx == len(reference.energies) - 1
        assert done.summary.best_step == reference.best.step_idx
        # Engines may sum in another order for another batch; records carry float32.
        np.testing.assert_allclose(slot_energies, reference.energies, rtol=2e-4, atol=1e-7)


def test_the_answer_is_decoded_from_the_lowest_energy_state(case):
    plugin, inputs = case
    _, finished = run_in_slots(plugin, inputs, slots=2)
    for x0, done in zip(inputs, finished, strict=True):
        expected = plugin.decode(refine(plugin, x0).best)
        if expected.array.dtype == np.uint8:
            # A pixel whose two best classes tie may fall either way.
            assert (done.answer.array == expected.array).mean() > 0.999
        else:
            np.testing.assert_allclose(done.answer.array, expected.array, rtol=1e-5)


@pytest.mark.parametrize("case", ["quadratic", "vision", "language"], indirect=True)
def test_a_latent_plugin_is_refined_alike_one_state_at_a_time(case, monkeypatch):
    """Overriding a method of the one-state contract changes the way, and nothing else."""
    plugin, inputs = case
    together, _ = run_in_slots(plugin, inputs, slots=3)
    kind = type(plugin)
    monkeypatch.setattr(kind, "gap", lambda self, state: 0.0)
    assert isinstance(open_slots(plugin, capacity=1, threads=1, history=0), StateSlots)
    apart, _ = run_in_slots(plugin, inputs, slots=3)
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-7)


def test_the_check_finds_nothing_to_mend(case):
    plugin, inputs = case
    assert [finding for finding in check(plugin, inputs) if finding.verdict == "FAIL"] == []
