"""Every plugin keeps the contract, and both ways of running it agree."""

from __future__ import annotations

import inspect
import time

import numpy as np
import pytest

from sage_edge import native, refine
from sage_edge.control import PlanProblem
from sage_edge.irp import INVARIANT_HEADINGS
from sage_edge.plugins.control import ControlPlugin
from sage_edge.runtime import CpuRefiner, Job
from sage_edge.telemetry import TelemetryValidator, load_schema
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


@pytest.fixture(params=["quadratic", "vision", "control"])
def case(request):
    """A plugin with four different prepared inputs."""
    rng = np.random.default_rng(7)
    if request.param == "quadratic":
        plugin = QuadraticPlugin()
        return plugin, [plugin.prepare(rng.normal(0, scale, 6)) for scale in (0.1, 1, 5, 200)]
    if request.param == "control":
        return ControlPlugin(), control_problems()
    plugin = request.getfixturevalue("vision")
    frame = request.getfixturevalue("nuclei_frame")
    frames = [frame, frame[::-1], frame // 3, np.roll(frame, 40, axis=1)]
    return plugin, [plugin.prepare(np.ascontiguousarray(f)) for f in frames]


def run_in_slots(plugin, inputs, slots):
    """Energies, reasons and best steps of each input, from the mailbox of a slot refiner."""
    ring = native.Ring(1024)
    reader = native.RingReader(ring)
    refiner = CpuRefiner(plugin.open_slots(slots, 1), ring=ring, plugin_number=0, now_ns=time.monotonic_ns)
    waiting = [Job(number, x0, plugin.halting) for number, x0 in enumerate(inputs)]
    finished = {}
    while waiting or refiner.live:
        jobs, waiting = waiting[: refiner.free], waiting[refiner.free :]
        for done in refiner.admit(jobs) + refiner.tick():
            finished[done.job.run_id] = done
    records = reader.drain(1024)
    energies = [records["E"][records["run_id"] == number] for number in range(len(inputs))]
    return energies, [finished[number] for number in range(len(inputs))]


def test_the_docstring_states_the_four_invariants(case):
    text = inspect.getdoc(type(case[0]))
    for heading in INVARIANT_HEADINGS:
        assert f"{heading}: " in text


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


def decode(plugin, state, x0):
    """The answer of one state."""
    if isinstance(plugin, ControlPlugin):
        return plugin.decode(state)
    [answer] = plugin.decode(state.x[None], [x0])
    return answer


def test_the_answer_is_decoded_from_the_lowest_energy_state(case):
    plugin, inputs = case
    _, finished = run_in_slots(plugin, inputs, slots=2)
    for x0, done in zip(inputs, finished, strict=True):
        best = refine(plugin, x0).best
        expected = decode(plugin, best, x0)
        if expected.array.dtype == np.uint8:
            # A pixel whose two best classes tie may fall either way.
            assert (done.answer.array == expected.array).mean() > 0.999
        else:
            np.testing.assert_allclose(done.answer.array, expected.array, rtol=1e-5)


def test_noise_along_the_noise_model_raises_the_energy_of_a_refined_state(case):
    plugin, inputs = case
    rng = np.random.default_rng(3)
    for x0 in inputs[:3]:
        refined = refine(plugin, x0).best
        noisy = [plugin.energy(plugin.project(plugin.perturb(refined, 1.0, rng))) for _ in range(4)]
        assert np.mean(noisy) > plugin.energy(refined)


def test_energy_is_pure_and_projection_idempotent(case):
    plugin, inputs = case
    state = plugin.init_state(inputs[0])
    before = state.x.copy()
    assert plugin.energy(state) == plugin.energy(state)
    once = plugin.project(plugin.perturb(state, 50.0, np.random.default_rng(0)))
    np.testing.assert_array_equal(plugin.project(once).x, once.x)
    np.testing.assert_array_equal(state.x, before)


def test_a_step_leaves_its_input_state_as_it_was(case):
    plugin, inputs = case
    state = plugin.init_state(inputs[1])
    before = state.x.copy()
    successor = plugin.step(state, 0.0)
    np.testing.assert_array_equal(state.x, before)
    assert successor.step_idx == 1
    assert not np.array_equal(successor.x, before)


def test_emitted_telemetry_is_valid_under_the_schema_at_every_step(case):
    plugin, inputs = case
    validator = TelemetryValidator(load_schema())
    result = refine(plugin, inputs[2])
    for count in range(1, len(result.energies) + 1):
        record = plugin.emit_telemetry(result.last, result.energies[:count])
        assert validator.errors(record) == []
    assert record["halt_reason"] == result.halt_reason


def test_the_successor_energy_of_a_step_is_the_energy_of_the_successor(case):
    plugin, inputs = case
    if not hasattr(plugin, "advance"):
        pytest.skip("steps its own slots: the reference loop and the slots share every energy")
    state = plugin.project(plugin.init_state(inputs[0]))
    context = {name: state.meta[name][None] for name in plugin.context_shapes}
    _, terms = plugin.advance(state.x[None], context, np.full(1, plugin.step_size, np.float32))
    successor = plugin.project(plugin.step(state, 0.0))
    assert terms.mean(dtype=np.float64) == pytest.approx(plugin.energy(successor), rel=1e-4, abs=1e-7)
