"""Small courses that tests share."""

from __future__ import annotations

import numpy as np

from sage_edge.control import Limits, Track, World

LIMITS = Limits(speed_m_s=2.0, acceleration_m_s2=2.0, curvature_1_m=4.0)


def slalom(**changes):
    """Two staggered walls of discs between start and goal."""
    low = [(x, 2.0, 0.1) for x in np.arange(-1.0, 1.6, 0.15)]
    high = [(x, 4.0, 0.1) for x in np.arange(-0.5, 2.1, 0.15)]
    options = {"robot_radius_m": 0.2, "limits": LIMITS, "knots": 60} | changes
    return World((0.5, 0.0), (0.5, 6.0), low + high, **options)


def forest(seed, count=25):
    """Discs anywhere between start and goal, both of which stay free."""
    rng = np.random.default_rng(seed)
    discs = np.column_stack(
        [rng.uniform(-2, 2, count), rng.uniform(1, 7, count), rng.uniform(0.05, 0.3, count)]
    )
    return World((0.0, 0.0), (0.0, 8.0), discs, 0.15, LIMITS, knots=60)


def ring(points=90, wobble=0.15, **changes):
    """A closed track around the origin, three times bent in and out."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    radius = 40 * (1 + wobble * np.cos(3 * angle))
    centre = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    return Track(centre, np.full(points, 5.0), np.full(points, 5.0), **changes)
