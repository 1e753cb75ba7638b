"""The first line: as short as an exhaustive search finds it, and through the gaps that the robot fits."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

from sage_edge.control import line, search
from sage_edge.control.search import is_closed, seed_line
from sage_edge.errors import InfeasibleError


def length(points):
    return np.linalg.norm(np.diff(points, axis=0), axis=1).sum()


def wall_with_gap(gap_m, radius=0.3):
    """A wall along y = 0 with one gap between the rims of two discs."""
    left = -gap_m / 2 - radius - np.arange(0, 20, 0.25)
    right = gap_m / 2 + radius + np.arange(0, 20, 0.25)
    x = np.concatenate([left, right])
    return np.column_stack([x, np.zeros(len(x)), np.full(len(x), radius)])


@pytest.mark.parametrize("shift", np.linspace(0, 0.1, 7))
@pytest.mark.parametrize("gap_m", [0.002, 0.05, 0.5])
def test_a_gap_is_found_however_narrow_and_wherever_the_grid_lies(gap_m, shift):
    discs = wall_with_gap(gap_m) + np.array([shift, shift / 3, 0])
    way = seed_line(np.array([2.0, -3.0]), np.array([2.0, 3.0]), discs, 0.1)
    assert way is not None
    crossing = way[np.argmin(np.abs(way[:, 1] - shift / 3))]
    assert abs(crossing[0] - shift) < gap_m / 2 + 0.15


def test_a_gap_that_is_closed_is_not_passed():
    discs = np.vstack([wall_with_gap(-0.002), wall_with_gap(-0.002) + np.array([0, 8, 0])])
    ends = np.array([(x, y, 0.3) for x in (-20.3, 20.3) for y in np.arange(0, 8.1, 0.4)])
    assert seed_line(np.array([0.0, 4.0]), np.array([0.0, 12.0]), np.vstack([discs, ends]), 0.1) is None


def test_an_open_plane_is_crossed_by_a_shortest_way_over_eight_neighbours():
    start, goal = np.array([0.0, 0.0]), np.array([3.0, 1.0])
    assert length(seed_line(start, goal, np.zeros((0, 3)), 0.1)) == pytest.approx(2 + np.sqrt(2), rel=0.03)


def ring_of_discs(open_m, radius=3.0, count=30, far=False):
    """Discs around the origin that overlap, but for one gap; perhaps one far away, for a coarse grid."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)[1:]
    half = radius * np.sin(np.pi / count) * 1.2
    ring = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), np.full(count - 1, half)])
    post = (np.linalg.norm(ring[0, :2] - ring[-1, :2]) - open_m) / 2
    ring[[0, -1], 2] = max(post, 0.01)
    return np.vstack([ring, [[100.0, 100.0, 1.0]]]) if far else ring


@pytest.mark.parametrize("open_m", [-0.01, -1e-9, 1e-9, 0.01, 0.3])
@pytest.mark.parametrize("turn", np.linspace(0, 2 * np.pi, 7))
def test_a_ring_is_closed_to_the_bit_whichever_way_it_lies(open_m, turn):
    cosine, sine = np.cos(turn), np.sin(turn)
    discs = ring_of_discs(open_m)
    discs[:, :2] = discs[:, :2] @ np.array([[cosine, sine], [-sine, cosine]])
    inside, outside = np.array([0.1, -0.2]), np.array([9.0, 1.0])
    assert is_closed(inside, outside, discs) == (open_m < 0)
    assert is_closed(outside, inside, discs) == (open_m < 0)
    assert not is_closed(inside, -inside, discs)
    assert not is_closed(outside, -outside, discs)


@pytest.mark.parametrize("open_m", [0.02, 0.3])
def test_a_grid_that_is_too_coarse_is_refined_until_the_way_is_found(open_m):
    discs = ring_of_discs(open_m, far=True)
    way = seed_line(np.zeros(2), np.array([9.0, 1.0]), discs, 2.0)
    assert way is not None
    crossing = way[np.argmin(np.abs(np.linalg.norm(way, axis=1) - 3.0))]
    assert np.linalg.norm(crossing - [3.0, 0.0]) < 2.0


def test_a_way_that_no_grid_finds_is_told_from_no_way():
    start, goal = np.zeros(2), np.array([9.0, 1.0])
    far = np.array([[1e5, 1e5, 1.0]])
    assert seed_line(start, goal, np.vstack([ring_of_discs(-0.01), far]), 0.1) is None
    with pytest.raises(InfeasibleError, match=r"there is a way, .* too coarse"):
        seed_line(start, goal, np.vstack([ring_of_discs(0.01), far]), 0.1)


def cost_by_the_book(discs, low, cell_m, shape):
    """Each disc alone and each pair of discs alone, as slowly as it can be said."""
    slack = cell_m / np.sqrt(2)
    x, y = (low[axis] + cell_m * np.arange(size) for axis, size in enumerate(shape))
    cost = np.ones(shape)
    for cx, cy, radius in discs:
        gap = np.hypot(x[:, None] - cx, y[None, :] - cy) - radius
        cost[gap < slack] = np.maximum(cost[gap < slack], 3.0)
        cost[gap < -slack] = np.inf
    for i, one in enumerate(discs):
        for other in discs[i + 1 :]:
            along = other[:2] - one[:2]
            length = np.hypot(*along)
            if length >= one[2] + other[2] or length <= max(one[2] + other[2] - 2 * slack, 0):
                continue
            middle = (one[2] + length - other[2]) / 2
            for at in middle + slack * np.linspace(-1, 1, 6):
                cell = np.rint((one[:2] + at / length * along - low) / cell_m).astype(int)
                cost[tuple(cell)] = np.inf
    return cost


@pytest.mark.parametrize("piece", [1, 300, 1 << 18])
def test_a_grid_that_is_worked_through_in_pieces_is_the_same(piece, monkeypatch):
    rng = np.random.default_rng(3)
    monkeypatch.setattr(search, "PIECE", piece)
    for _ in range(5):
        discs = np.column_stack([rng.uniform(0, 6, (40, 2)), rng.choice([0.05, 0.3, 2.0], 40)])
        low, cell_m = np.array([-3.0, -3.0]), 0.13
        shape = (93, 95)
        expected = cost_by_the_book(discs, low, cell_m, shape)
        np.testing.assert_array_equal(search._cost(discs, low, cell_m, shape), expected)


@pytest.mark.parametrize("piece", [1, 7, 1 << 18])
def test_a_distance_that_is_worked_out_in_pieces_is_the_same(piece, monkeypatch):
    rng = np.random.default_rng(4)
    monkeypatch.setattr(line, "PIECE", piece)
    knots, discs = rng.uniform(-3, 3, (30, 2)), np.abs(rng.uniform(-3, 3, (11, 3)))
    points = np.concatenate([np.linspace(a, b, 400) for a, b in itertools.pairwise(knots)])
    sampled = (np.hypot(*(points[:, None] - discs[None, :, :2]).T).T - discs[:, 2]).min()
    assert line.clearance(knots, discs) == pytest.approx(sampled, abs=0.01)  # half a step of the samples


def test_a_world_of_two_thousand_discs_takes_tens_of_megabytes():
    rng = np.random.default_rng(5)
    small = np.column_stack([rng.uniform(-99, 99, (1999, 2)), np.full(1999, 0.1)])
    discs = np.vstack([[0.0, 0.0, 100.0], small])
    tracemalloc.start()
    assert seed_line(np.array([-150.0, 150.0]), np.array([150.0, 150.0]), discs, 0.1) is not None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 48 << 20
