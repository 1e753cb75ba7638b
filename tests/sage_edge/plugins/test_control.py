"""Documents become problems or clear errors; slots do what each problem would do alone."""

from __future__ import annotations

import json
import time
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge import native, refine
from sage_edge.errors import InfeasibleError, InputError, ParameterError, ProblemError, ShapeError
from sage_edge.plugins import control_documents
from sage_edge.plugins.control import ControlPlugin
from sage_edge.runtime import CpuRefiner, Job, open_slots

QP = {"kind": "qp", "P": [[2.0, 0.0], [0.0, 2.0]], "q": [-2.0, -5.0], "A": [[1.0, 1.0]], "u": [1.0]}
MPC = {"kind": "mpc", "A": [[1.0, 0.1], [0.0, 1.0]], "B": [[0.005], [0.1]], "Q": [1.0, 0.1], "R": [0.1]}
MPC |= {"N": 10, "x0": [1.0, 0.2], "u_min": [-1.0], "u_max": [1.0]}
PLAN = {"kind": "plan", "start": [0, 0], "goal": [0, 6], "obstacles": [[0, 3, 0.5]], "robot_radius_m": 0.2}
TRACK = {
    "kind": "track",
    "centre": [[30 * np.cos(a), 20 * np.sin(a)] for a in np.linspace(0, 6.2, 60)],
    "right_m": [3.0] * 60,
    "left_m": [3.0] * 60,
}


@pytest.fixture
def plugin():
    return ControlPlugin()


def run(plugin, problems, slots=2, streams=None):
    """Answers and summaries of problems, in order, from one refiner."""
    ring = native.Ring(4096)
    states = open_slots(plugin, capacity=slots, threads=1, history=0)
    refiner = CpuRefiner(states, plugin.example, ring=ring, plugin_number=0, now_ns=time.monotonic_ns)
    streams = streams or [None] * len(problems)
    waiting = [
        Job(number, problem, plugin.halting, stream_id=stream)
        for number, (problem, stream) in enumerate(zip(problems, streams, strict=True))
    ]
    done = {}
    while waiting or refiner.live:
        jobs, waiting = waiting[: refiner.free], waiting[refiner.free :]
        for finished in refiner.admit(jobs) + refiner.tick():
            done[finished.job.run_id] = finished
    return [done[number] for number in range(len(problems))]


@pytest.mark.parametrize("document", [QP, MPC, PLAN, TRACK], ids=lambda d: d["kind"])
def test_every_kind_is_refined_to_a_feasible_answer_that_json_can_carry(plugin, document):
    [finished] = run(plugin, [plugin.prepare(document)])
    details = json.loads(json.dumps(dict(finished.answer.details), allow_nan=False))
    assert details["kind"] == document["kind"]
    assert details["feasible"] is True
    assert finished.summary.halt_reason in ("feasible", "slope<eps")
    assert np.isfinite(finished.answer.array).all()


def test_the_size_of_a_problem_grows_with_its_variables_and_points(plugin):
    def size(document):
        return plugin.input_size(plugin.prepare(document))

    assert size(QP) == 2 * (2 + 1)
    assert size(MPC | {"N": 20}) >= 4 * size(MPC)
    longer = {name: 2 * value if isinstance(value, list) else value for name, value in TRACK.items()}
    assert plugin.prepare(TRACK).size == 60**2 < size(longer | {"centre": _ellipse(120)})


def _ellipse(points):
    return [[30 * np.cos(a), 20 * np.sin(a)] for a in np.linspace(0, 6.2, points)]


def test_a_quadratic_program_is_solved_to_its_known_optimum(plugin):
    [finished] = run(plugin, [plugin.prepare(QP)])
    np.testing.assert_allclose(finished.answer.array, [-0.25, 1.25], atol=2e-3)


def test_a_problem_without_a_solution_ends_early_with_a_certificate_that_proves_it(plugin):
    document = QP | {"A": [[1.0, 1.0], [1.0, 1.0]], "l": [3.0, None], "u": [None, 1.0]}
    [finished] = run(plugin, [plugin.prepare(document)])
    details = finished.answer.details
    assert finished.summary.halt_reason == "diverged"
    assert details["feasible"] is False
    assert details["violation"] >= 1.0
    y = np.array(details["certificate"]["vector"])
    # A'y = 0, and y times the limits that its signs point to is below 0: no x can satisfy both rows.
    np.testing.assert_allclose(np.array(document["A"]).T @ y[:2] + y[2:], 0, atol=1e-6)
    assert 3.0 * min(y[0], 0) + 1.0 * max(y[1], 0) < 0
    assert y[0] <= 0 <= y[1]


def test_an_unbounded_problem_ends_early_with_a_direction_of_endless_descent(plugin):
    document = {"kind": "qp", "P": [[0.0, 0.0], [0.0, 2.0]], "q": [-2.0, -5.0]}
    [finished] = run(plugin, [plugin.prepare(document)])
    direction = np.array(finished.answer.details["certificate"]["vector"])
    np.testing.assert_allclose(
        np.array(document["P"]) @ direction, 0, atol=1e-6
    )  # the solver's own tolerance
    assert np.dot(document["q"], direction) < 0
    assert finished.summary.halt_reason == "diverged"


def test_results_do_not_depend_on_the_slot_or_on_the_neighbours(plugin):
    documents = [QP, MPC, PLAN, QP | {"q": [3.0, -1.0]}, MPC | {"x0": [-2.0, 0.3]}, PLAN | {"goal": [1, 6]}]
    alone = [run(plugin, [plugin.prepare(document)], slots=1)[0] for document in documents]
    together = run(plugin, [plugin.prepare(document) for document in documents], slots=4)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.answer.array, other.answer.array)
        assert one.summary.best_E == other.summary.best_E


def test_a_stream_goes_on_where_its_last_problem_ended(plugin):
    first, again = (plugin.prepare(MPC | {"shift": False}) for _ in range(2))
    warmed = run(plugin, [first, again, plugin.prepare(MPC)], slots=1, streams=["arm", "arm", "leg"])
    steps = [finished.summary.step_idx for finished in warmed]
    assert steps[1] < steps[0] == steps[2]


def test_a_stream_of_another_form_starts_cold(plugin):
    documents = [MPC, QP, PLAN]
    mixed = run(plugin, [plugin.prepare(document) for document in documents], slots=1, streams=["s"] * 3)
    for finished, document in zip(mixed, documents, strict=True):
        [cold] = run(plugin, [plugin.prepare(document)], slots=1)
        np.testing.assert_array_equal(finished.answer.array, cold.answer.array)


def test_the_answer_of_the_reference_loop_is_feasible_whatever_stops_it(plugin):
    problem = plugin.prepare(PLAN)
    assert plugin.decode(refine(plugin, problem).best).details["feasible"] is True


@pytest.mark.parametrize(
    ("document", "error", "message"),
    [
        ({}, ParameterError, "problem.kind: expected one of qp, mpc, plan, track, got None"),
        ({"kind": "lp"}, ParameterError, "got 'lp'"),
        ({"kind": ["qp"]}, ParameterError, "problem.kind"),
        ({"kind": "qp", "P": [[1.0]]}, ParameterError, r"missing \['q'\]"),
        (QP | {"x": 1}, ParameterError, r"unknown \['x'\]"),
        (QP | {"P": [[1.0, 0.0]]}, ShapeError, r"P: expected \[2, 2\] to fit q"),
        (QP | {"P": [[1.0, 0.0], [0.0]]}, ShapeError, "P: expected numbers in 2 dimensions"),
        (QP | {"P": [[-1.0, 0.0], [0.0, 1.0]]}, ProblemError, "smallest eigenvalue -1"),
        (QP | {"q": [float("nan"), 0.0]}, ProblemError, "NaN"),
        (QP | {"l": [2.0]}, ProblemError, "l"),
        (QP | {"l": [1 + 1e-12]}, ProblemError, r"got \[1\.00000000000\d+, 1\] at 0"),
        (MPC | {"R": [-1.0], "Q": [0.0, 0.0]}, ProblemError, "R, Q: expected that more input costs more"),
        (MPC | {"A": [[1e200, 0.0], [0.0, 1.0]]}, ProblemError, "A: what is left to pay grows beyond"),
        (MPC | {"x0": [1e200, 0.0]}, ProblemError, "x0: its cost over 10 stages is beyond"),
        (
            PLAN | {"limits": {"speed_m_s": 1.7976931348623157e308}},
            ParameterError,
            "speed_m_s: expected a number",
        ),
        (PLAN | {"cell_m": 1e308}, ParameterError, "cell_m: expected more than 0 and at most"),
        (PLAN | {"start": [1e200, 0]}, ParameterError, "start: expected numbers up to"),
        (PLAN | {"obstacles": [[-0.59999, 0, 0.4]]}, InfeasibleError, r"is 1e-05 m inside"),
        (QP | {"u": [1.0, 2.0]}, ShapeError, "u"),
        (QP | {"eps": 0}, ParameterError, "eps: expected more than 0"),
        (QP | {"stream_id": "arm"}, ParameterError, "stream_id: expected it beside the problem"),
        (MPC | {"N": 0}, ParameterError, "N: expected a whole number from 1"),
        (MPC | {"N": 2.5}, ParameterError, "N: expected a whole number"),
        (MPC | {"N": 600}, ParameterError, "N: expected at most 512 for 2 states or inputs, got 600"),
        (MPC | {"A": [[]]}, ShapeError, "A: expected a matrix that is not empty"),
        (MPC | {"x0": "here"}, ShapeError, "x0: expected numbers"),
        (MPC | {"shift": 1}, ParameterError, "shift: expected true or false"),
        (PLAN | {"start": [0, 3]}, InfeasibleError, "start: the robot of radius 0.2 m is"),
        (PLAN | {"obstacles": [[0, 3]]}, ShapeError, "obstacles"),
        (PLAN | {"robot_radius_m": True}, ParameterError, "robot_radius_m: expected a number, got True"),
        (PLAN | {"limits": {"jerk": 1}}, ParameterError, "limits: expected some of"),
        (TRACK | {"margin_m": 5.0}, InfeasibleError, "narrower than twice the margin"),
        (TRACK | {"left_m": [1.0]}, ShapeError, "track: expected centre"),
    ],
)
def test_a_document_that_cannot_be_used_is_refused_with_what_is_wrong(plugin, document, error, message):
    with pytest.raises(error, match=message):
        plugin.prepare(document)


@pytest.mark.parametrize(
    "document",
    [
        QP | {"q": [10**400, 0]},
        QP | {"eps": 10**400},
        {"kind": "qp", "P": np.zeros((0, 0)), "q": np.zeros(0)},
        MPC | {"N": 10**400},
        MPC | {"Q": [[1, [2]], [3]]},
        MPC | {"x_ref": [[1, [2]], [3]]},
        PLAN | {"robot_radius_m": 10**400},
    ],
)
def test_what_numpy_cannot_hold_is_the_callers_fault(plugin, document):
    with pytest.raises(InputError):
        plugin.prepare(document)


@pytest.mark.parametrize(
    ("document", "came"),
    [
        (QP | {"l": [1 + 1e-12]}, "1.0000000000010001, 1"),
        (QP | {"lb": [1 + 1e-12, 0], "ub": [1, 1]}, "1.0000000000010001, 1"),
        (MPC | {"u_min": [1 + 1e-12], "u_max": [1]}, "1.000000000001 and 1.0"),
        (PLAN | {"goal": [0, 1e9 + 1]}, "up to 1e+09, got 1000000001.0"),
        (PLAN | {"robot_radius_m": 1e9 + 1e-4}, "1e+09, got 1000000000.0001"),
        (TRACK | {"margin_m": 3 + 1e-9}, "3.000000001 m, with 6.0 m"),
    ],
)
def test_numbers_that_differ_by_little_differ_in_the_message_too(plugin, document, came):
    with pytest.raises(InputError) as caught:
        plugin.prepare(document)
    assert came in str(caught.value)


def test_any_value_in_any_place_gives_a_problem_or_an_input_error(plugin):
    odd = [
        None,
        True,
        -1,
        10**400,
        [10**400],
        1e308,
        float("nan"),
        "x",
        [],
        {},
        [None],
        [[]],
        [["a"]],
        [[1.0], [2.0, 3.0]],
    ]
    for document in (QP, MPC, PLAN, TRACK):
        for name in document:
            for value in odd:
                try:
                    plugin.prepare(document | {name: value})
                except InputError as exc:
                    assert str(exc)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=3), lambda some: st.lists(some, max_size=3)
    )
)
def test_the_memory_of_any_document_is_a_number(value):
    """Asked before anything is checked."""
    plugin = ControlPlugin({})
    for kind in ("qp", "mpc", "plan", "track", value, np.array("qp"), np.array(["qp"])):
        names = ("P", "q", "A", "B", "N", "obstacles", "knots", "centre")
        document = {"kind": kind, **dict.fromkeys(names, value)}
        assert plugin.needed_bytes(document) > 0
    assert plugin.needed_bytes({name: np.array(1.0) for name in names}) > 0


def test_the_memory_of_a_problem_grows_with_it_up_to_what_is_let_in():
    plugin = ControlPlugin({})

    def of_qp(n):
        return plugin.needed_bytes({"kind": "qp", "P": [[0.0] * n] * n, "q": [0.0] * n, "A": [[0.0] * n] * n})

    assert 8 * 2 * 100**2 < of_qp(100) < of_qp(200) < of_qp(1024) == of_qp(2000)


def test_solvers_that_nobody_has_are_kept_by_bytes_and_those_in_use_are_shared():
    shared = control_documents._Shared()
    small = shared.get({"P": np.eye(2)}, Thing, 1)
    large = shared.get({"P": np.eye(3)}, Thing, control_documents._KEPT_BYTES)
    assert shared.get({"P": np.eye(3)}, Thing, control_documents._KEPT_BYTES) is large
    assert shared.get({"P": np.eye(2)}, Thing, 1) is small
    assert shared.get({"P": np.eye(2).reshape(1, 4)}, Thing, 1) is not small
    assert shared.get({"P": np.eye(2)}, Thing, 1, "another") is not small
    gone = weakref.ref(large)
    del large
    assert gone() is None
    kept = weakref.ref(small)
    del small
    assert kept() is not None


class Thing:
    """What can be referred to weakly."""
