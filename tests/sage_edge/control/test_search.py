"""The first line: as short as an exhaustive search finds it, and through the gaps that the robot fits."""

from __future__ import annotations

import numpy as np
import pytest

from sage_edge.control.search import seed_line


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
