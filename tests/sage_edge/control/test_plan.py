"""Plans are what they say: held against an oracle that shares nothing with the planner."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.control import PLAN_HALTING, Limits, PlanProblem, Track, World, plan
from sage_edge.errors import InfeasibleError, ParameterError, ShapeError
from tests.fakes import FakeClock
from tests.oracles import plane
from tests.sage_edge.control.worlds import LIMITS, forest, ring, slalom

# The planner allows 1e-6; the oracle's points lie 5 mm apart and see no more than that.
SLACK = 2e-6


def keeps_everything(made, world):
    motion, limits = made.motion, world.limits
    return (
        plane.least_clearance_m(motion.position, world.obstacles, world.robot_radius_m) >= -SLACK
        and plane.largest_curvature_1_m(motion.position) <= limits.curvature_1_m * (1 + SLACK)
        and np.linalg.norm(motion.velocity, axis=1).max() <= limits.speed_m_s * (1 + SLACK)
        and np.linalg.norm(motion.acceleration, axis=1).max() <= limits.acceleration_m_s2 * (1 + SLACK)
    )


def test_a_plan_runs_from_start_to_goal_around_the_walls_within_every_limit():
    world = slalom()
    made = plan(world)
    assert made.feasible
    assert keeps_everything(made, world)
    np.testing.assert_array_equal(made.motion.position[[0, -1]], [world.start, world.goal])


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_what_a_plan_says_of_its_feasibility_is_what_the_oracle_finds(seed):
    try:
        world = forest(seed)
        made = plan(world)
    except InfeasibleError:
        return
    assert made.feasible == keeps_everything(made, world)


@pytest.mark.parametrize("max_steps", [0, 1, 2, 5])
def test_the_best_line_so_far_is_the_answer_and_more_rounds_never_make_it_worse(max_steps):
    world = slalom()
    made = plan(world, max_steps=max_steps)
    assert len(made.energies) - 1 <= max_steps
    assert made.feasible == keeps_everything(made, world)
    assert np.all(np.diff(made.energies) <= 0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_steps": 1, "gap_tolerance": 0.0}, "max_steps"),
        ({"halt_when_feasible": False, "eps": 1e-2}, "slope<eps"),
        ({"gap_tolerance": 1.0}, "feasible"),
        ({"budget_us": 0.0}, "budget"),
        ({"target_E_norm": 10.0}, "confidence"),
        ({"deadline_ns": 0}, "timeout"),
    ],
)
def test_whatever_ends_a_plan_it_is_feasible_or_says_that_it_is_not(changes, reason):
    world = slalom()
    policy = PLAN_HALTING.replace(**changes)
    made = plan(world, policy=policy)
    assert made.halt_reason == reason
    assert made.feasible == keeps_everything(made, world)
    assert made.feasible or made.violation > 0


def test_the_motion_is_dynamically_consistent_after_every_round():
    problem = PlanProblem(slalom())
    iterate = problem.first()
    for _ in range(4):
        assert plane.played(problem.motion(iterate)) < 1e-9
        iterate = problem.step(iterate)


class TickingClock(FakeClock):
    """Every look at it takes 10 ms."""

    def monotonic_ns(self):
        self.advance(0.01)
        return super().monotonic_ns()


def test_a_round_that_would_end_behind_the_deadline_is_not_begun():
    # Set-up takes 10 ms, so a round is taken to last 5 ms; then it takes 10, and a quarter is spared.
    rounds = [
        len(plan(slalom(), deadline_ms=ms, clock=TickingClock()).energies) - 1 for ms in (5, 17, 25, 35)
    ]
    assert rounds == [0, 1, 1, 2]


def test_more_clearance_is_a_longer_way():
    lengths = []
    for radius_m in (0.1, 0.2, 0.3):
        motion = plan(slalom(robot_radius_m=radius_m)).motion
        lengths.append(np.linalg.norm(np.diff(motion.position, axis=0), axis=1).sum())
    assert lengths == sorted(lengths)


def test_without_obstacles_the_plan_is_the_straight_line_at_full_speed():
    limits = Limits(speed_m_s=2.0, acceleration_m_s2=1.0)
    motion = plan(World((0, 0), (10, 0), [], 0.2, limits, knots=200)).motion
    np.testing.assert_allclose(motion.position[:, 1], 0, atol=1e-9)
    # 2 s to 2 m/s over 2 m, 6 m at 2 m/s, 2 s to rest; the first half metre has few knots.
    assert motion.time_s[-1] == pytest.approx(7.0, rel=0.02)


def test_a_wall_without_a_gap_that_fits_is_an_error_and_no_search_without_end():
    wall = [(x, 2.0, 0.1) for x in np.arange(-60.0, 60.0, 0.3)]
    ring_of_discs = [(3 * math.cos(a), 3 * math.sin(a), 0.2) for a in np.arange(0, 6.3, 0.1)]
    for obstacles in (
        ring_of_discs,
        wall + [(x, -2.0, 0.1) for x in np.arange(-60, 60, 0.3)] + ring_of_discs,
    ):
        with pytest.raises(InfeasibleError, match="no way from"):
            plan(World((0, 0), (0, 4), obstacles, 0.2))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"start": (0.0, 0.1)}, InfeasibleError, "start: the robot of radius 0.2 m is"),
        ({"goal": (0.0, float("nan"))}, ShapeError, "goal: expected finite numbers"),
        ({"goal": (1.0, 2.0, 3.0)}, ShapeError, r"goal: expected \[2\], got \[3\]"),
        ({"goal": (0.0, 3.0), "start": (0.0, 3.0)}, ParameterError, "another place than the start"),
        ({"obstacles": [[0.0, 0.0]]}, ShapeError, r"obstacles: expected \['n', 3\]"),
        ({"obstacles": [[0.0, 0.0, -1.0]]}, ParameterError, "radii of 0 or more"),
        ({"obstacles": [["a", 0.0, 1.0]]}, ShapeError, "obstacles: expected numbers"),
        ({"robot_radius_m": -0.1}, ParameterError, "robot_radius_m"),
        ({"knots": 3}, ParameterError, "knots"),
        ({"cell_m": 0.0}, ParameterError, "cell_m"),
    ],
)
def test_a_world_that_cannot_be_used_is_refused_with_what_is_wrong(changes, error, message):
    good = {"start": (0, -3), "goal": (0, 3), "obstacles": [[0.0, 0.0, 0.5]], "robot_radius_m": 0.2}
    with pytest.raises(error, match=message):
        World(**(good | changes))


@pytest.mark.parametrize("name", ["speed_m_s", "acceleration_m_s2", "curvature_1_m"])
def test_a_limit_that_is_not_positive_is_refused_by_name(name):
    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(ParameterError, match=name):
            Limits(**{name: value})


def test_a_track_line_bends_less_than_the_centre_and_keeps_its_margin():
    track = ring()
    made = plan(track)
    assert made.feasible
    assert plane.least_edge_distance_m(made.motion.position, track.centre, track.right_m, track.left_m) > 0.7
    ratio = plane.curvature_cost_1_m(made.motion.position) / plane.curvature_cost_1_m(track.centre)
    assert ratio < 0.8
    assert plane.played(made.motion, closed=True) < 1e-9


def test_on_a_round_track_the_outer_edge_is_the_least_bent_line():
    # Of concentric circles the curvature cost is 2 pi / radius: least at the largest radius.
    made = plan(ring(wobble=0.0), policy=PLAN_HALTING.replace(max_steps=100, gap_tolerance=1e-6))
    radius = np.linalg.norm(made.motion.position, axis=1)
    np.testing.assert_allclose(radius, 44.25, rtol=1e-3)


def test_a_track_too_narrow_for_its_margin_is_refused():
    with pytest.raises(InfeasibleError, match="narrower than twice the margin"):
        ring(margin_m=5.1)


def test_the_projection_of_a_world_is_idempotent_and_never_moves_two_lines_apart():
    rng = np.random.default_rng(0)
    world = slalom()
    a, b = (world.first_line() + rng.normal(0, 3, (60, 2)) for _ in range(2))
    once, other = world.clamp(a), world.clamp(b)
    np.testing.assert_array_equal(world.clamp(once), once)
    assert np.linalg.norm(once - other) <= np.linalg.norm(a - b)


def test_the_projection_of_a_track_takes_a_line_back_between_the_edges():
    track = ring()
    outside = track.centre * 1.2
    assert track.intrusion_m(outside) > 1.0
    once = track.clamp(outside)
    # The normals turn a little with the knots, so that the first projection is exact to first order.
    assert track.intrusion_m(once) < 0.1
    assert track.intrusion_m(track.clamp(once)) < track.tolerance_m


def test_a_track_that_crosses_itself_is_followed_through_the_crossing():
    share = np.linspace(0, 2 * np.pi, 150, endpoint=False)
    centre = 60 * np.column_stack([np.sin(share), np.sin(2 * share) / 2])
    made = plan(Track(centre, np.full(150, 4.0), np.full(150, 4.0)))
    assert made.feasible
    for k, position in enumerate(made.motion.position):
        beside = centre[np.arange(k - 12, k + 13) % 150]
        assert np.linalg.norm(beside - position, axis=1).min() < 4.0


def test_limits_of_the_slalom_bind():
    # Otherwise the tests above would pass without looking at them.
    made = plan(slalom())
    assert np.linalg.norm(made.motion.velocity, axis=1).max() > 0.5 * LIMITS.speed_m_s
    assert np.linalg.norm(made.motion.acceleration, axis=1).max() == pytest.approx(2.0, rel=1e-2)
