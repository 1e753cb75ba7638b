"""Whether a motion in the plane is what it says: collisions, limits and dynamics, checked point by point.

Nothing here is shared with the planner: distances are taken at many points of each segment, curvature is
that of the circle through three points by its area, and the motion is played from its velocities.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

#: Distance between the points of a segment at which its clearance is looked at, metres.
_SPACING_M = 0.005


def least_clearance_m(positions, obstacles, robot_radius_m):
    """Least distance from the robot's rim to an obstacle's, over a polyline; obstacles [m, 3]."""
    obstacles = np.asarray(obstacles, float)
    worst = math.inf
    for begin, end in itertools.pairwise(positions):
        count = max(2, math.ceil(math.dist(begin, end) / _SPACING_M) + 1)
        for share in np.linspace(0.0, 1.0, count):
            x, y = (1 - share) * begin[0] + share * end[0], (1 - share) * begin[1] + share * end[1]
            distance = np.sqrt((obstacles[:, 0] - x) ** 2 + (obstacles[:, 1] - y) ** 2)
            worst = min(worst, float((distance - obstacles[:, 2]).min()) - robot_radius_m)
    return worst


def largest_curvature_1_m(positions, closed=False):
    """Of the circle through each three neighbours: four times the triangle's area over its three sides."""
    points = [tuple(point) for point in positions]
    if closed:
        points = [points[-1], *points, points[0]]
    worst = 0.0
    for a, b, c in zip(points[:-2], points[1:-1], points[2:], strict=True):
        doubled_area = abs((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))
        worst = max(worst, 2 * doubled_area / (math.dist(a, b) * math.dist(b, c) * math.dist(a, c)))
    return worst


def curvature_cost_1_m(positions):
    """Sum of squared curvature times length over a closed polyline."""
    points = [tuple(positions[-1]), *map(tuple, positions), tuple(positions[0])]
    cost = 0.0
    for a, b, c in zip(points[:-2], points[1:-1], points[2:], strict=True):
        area = abs((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])) / 2
        kappa = 4 * area / (math.dist(a, b) * math.dist(b, c) * math.dist(a, c))
        cost += kappa**2 * (math.dist(a, b) + math.dist(b, c)) / 2
    return cost


def least_edge_distance_m(positions, centre, right_m, left_m):
    """Least distance from a closed line's knots to the edges of a track; negative outside.

    The edges are the polylines through the centre's points moved sideways by the widths.
    """
    ahead = np.roll(centre, -1, axis=0) - np.roll(centre, 1, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1)[:, None]
    to_right = np.column_stack([ahead[:, 1], -ahead[:, 0]])
    edges = (centre + to_right * right_m[:, None], centre - to_right * left_m[:, None])
    return min(min(_distance_m(point, edge) for edge in edges) for point in positions)


def _distance_m(point, polyline):
    begin, step = polyline, np.roll(polyline, -1, axis=0) - polyline
    square = np.maximum((step**2).sum(axis=1), 1e-18)
    share = np.clip(((point - begin) * step).sum(axis=1) / square, 0, 1)
    return float(np.linalg.norm(begin + share[:, None] * step - point, axis=1).min())


def played(motion, closed=False):
    """Largest difference between a motion and what its own velocities and accelerations lead to."""
    dt = np.diff(motion.time_s)
    position, worst = np.array(motion.position[0]), 0.0
    for k, velocity in enumerate(motion.velocity):
        position = position + dt[k] * velocity
        worst = max(worst, float(np.abs(position - motion.position[(k + 1) % len(motion.position)]).max()))
    velocity = np.array(motion.velocity[-1]) if closed else np.zeros(2)
    for k, acceleration in enumerate(motion.acceleration):
        before = dt[k - 1] / 2 if k or closed else 0.0
        after = dt[k] / 2 if k < len(dt) else 0.0
        velocity = velocity + (before + after) * acceleration
        expected = motion.velocity[k] if k < len(motion.velocity) else np.zeros(2)
        worst = max(worst, float(np.abs(velocity - expected).max()))
    return worst
