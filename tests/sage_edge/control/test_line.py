"""Curvature and its derivatives against finite differences, distances against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.control import line
from tests.oracles import plane


def wavy(count, closed):
    share = np.linspace(0, 2 * np.pi, count, endpoint=not closed)
    radius = 5 + np.sin(3 * share)
    if closed:
        return np.column_stack([radius * np.cos(share), radius * np.sin(share)])
    return np.column_stack([share, np.sin(share)])


@pytest.mark.parametrize("closed", [False, True])
def test_curvature_is_that_of_the_circle_through_three_knots(closed):
    knots = wavy(40, closed)
    bend = line.curvature(knots, line.normals(knots, closed), closed)
    assert np.abs(bend.kappa).max() == pytest.approx(plane.largest_curvature_1_m(knots, closed))


@pytest.mark.parametrize("closed", [False, True])
def test_derivatives_of_the_curvature_are_the_limit_of_differences(closed):
    knots = wavy(25, closed)
    normal = line.normals(knots, closed)
    bend = line.curvature(knots, normal, closed)
    first = 0 if closed else 1  # the knot of the first curvature
    for moved in range(len(knots)):
        step = np.zeros_like(knots)
        step[moved] = 1e-6 * normal[moved]
        sides = (line.curvature(knots + sign * step, normal, closed).kappa for sign in (1, -1))
        change = np.subtract(*sides) / 2e-6
        expected = np.zeros_like(change)
        for offset, values in zip((1, 0, -1), bend.changes.T, strict=True):
            row = moved - first + offset
            if closed or 0 <= row < len(values):
                expected[row % len(values)] += values[row % len(values)]
        np.testing.assert_allclose(change, expected, atol=1e-6)


@given(seed=st.integers(0, 1000))
def test_clearance_is_the_least_distance_of_any_point_of_the_line(seed):
    rng = np.random.default_rng(seed)
    knots = rng.normal(0, 2, (6, 2))
    discs = np.column_stack([rng.normal(0, 3, (5, 2)), rng.uniform(0, 1, 5)])
    # The oracle looks every 5 mm, so it may miss the nearest point by 2.5 mm along the line.
    assert line.clearance(knots, discs) == pytest.approx(
        plane.least_clearance_m(knots, discs, 0.0), abs=2.5e-3
    )


@pytest.mark.parametrize("closed", [False, True])
def test_resampling_keeps_the_ends_and_spaces_the_knots_evenly(closed):
    knots = line.resample(wavy(200, closed), 50, closed)
    spacing = line.lengths(knots, closed)
    assert spacing.max() / spacing.min() < 1.05
    np.testing.assert_array_equal(knots[0], wavy(200, closed)[0])
