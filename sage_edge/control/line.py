"""A line in the plane as a row of knots: its normals, lengths and curvature, and how these move with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: Most numbers of an array of pairs that is made at once: what is larger is worked through in pieces.
PIECE = 1 << 18


class Curvature(NamedTuple):
    """Curvature of m inner knots, and its first-order change when knots move along their normals.

    Attributes:
        kappa: float64 [m], 1/m, positive to the left: twice the sine of the turn over the chord.
        length: float64 [m], metres of line that belong to the knot.
        changes: float64 [m, 3], change of ``kappa`` for 1 m along the normal of the previous knot, the knot
            itself and the next one.
    """

    kappa: Floats
    length: Floats
    changes: Floats


def segments(knots: Floats, closed: bool) -> Floats:
    """Vectors from each knot to the next: [n - 1, 2], or [n, 2] for a closed line."""
    return np.roll(knots, -1, axis=0) - knots if closed else np.diff(knots, axis=0)


def lengths(knots: Floats, closed: bool) -> Floats:
    """Metres of each segment."""
    return _norm(segments(knots, closed))


def normals(knots: Floats, closed: bool) -> Floats:
    """Unit normals to the left, float64 [n, 2], across the chord of a knot's neighbours."""
    around = (
        np.vstack([knots[-1:], knots, knots[:1]]) if closed else np.vstack([knots[:1], knots, knots[-1:]])
    )
    chord = around[2:] - around[:-2]
    chord /= np.maximum(_norm(chord), 1e-12)[:, None]
    return np.column_stack([-chord[:, 1], chord[:, 0]])


def curvature(knots: Floats, normal: Floats, closed: bool) -> Curvature:
    """Curvature through every three neighbouring knots (the circle through them), with its derivatives.

    An open line has no curvature at its two ends: m = n - 2; a closed one has m = n.
    """
    p0, p1, p2 = _triples(knots, closed)
    n0, n1, n2 = _triples(normal, closed)
    d1, d2, d3 = p1 - p0, p2 - p1, p2 - p0
    l1, l2, l3 = (np.maximum(_norm(d), 1e-12) for d in (d1, d2, d3))
    scale = 2 / (l1 * l2 * l3)
    kappa = scale * _cross(d1, d2)
    # d(kappa) = scale * d(cross) - kappa * (dl1 / l1 + dl2 / l2 + dl3 / l3)
    before = scale * _cross(-n0, d2) + kappa * (_dot(d1, n0) / l1**2 + _dot(d3, n0) / l3**2)
    here = scale * (_cross(n1, d2) - _cross(d1, n1)) + kappa * (_dot(d2, n1) / l2**2 - _dot(d1, n1) / l1**2)
    after = scale * _cross(d1, n2) - kappa * (_dot(d2, n2) / l2**2 + _dot(d3, n2) / l3**2)
    return Curvature(kappa, (l1 + l2) / 2, np.column_stack([before, here, after]))


def bending(knots: Floats, closed: bool) -> float:
    """The curvature cost of a line: the sum of curvature squared times length, 1/m."""
    bend = curvature(knots, normals(knots, closed), closed)
    return float(np.sum(bend.kappa**2 * bend.length))


def clearance(knots: Floats, discs: Floats, closed: bool = False) -> float:
    """Least distance from a line, segments included, to the rims of discs [m, 3] (x, y, radius), metres.

    Negative inside a disc; infinite without discs.
    """
    if not len(discs):
        return float("inf")
    start, step = knots if closed else knots[:-1], segments(knots, closed)
    count = max(1, PIECE // len(discs))
    pieces = (slice(first, first + count) for first in range(0, len(start), count))
    return min(_least_gap(start[piece], step[piece], discs) for piece in pieces)


def _least_gap(start: Floats, step: Floats, discs: Floats) -> float:
    """Least distance from segments to the rims of discs."""
    to_x, to_y = (discs[:, axis] - start[:, axis, None] for axis in (0, 1))
    square = np.maximum(_dot(step, step), 1e-18)[:, None]
    along = np.clip((to_x * step[:, :1] + to_y * step[:, 1:]) / square, 0.0, 1.0)
    to_x -= along * step[:, :1]
    to_y -= along * step[:, 1:]
    gap = np.sqrt(to_x * to_x + to_y * to_y) - discs[:, 2]
    return float(gap.min())


def resample(knots: Floats, count: int, closed: bool) -> Floats:
    """The same polyline with knots at equal distances: float64 [count, 2]; an open line keeps its ends."""
    ring = np.vstack([knots, knots[:1]]) if closed else knots
    at = np.concatenate([[0.0], np.cumsum(_norm(np.diff(ring, axis=0)))])
    want = np.linspace(0.0, at[-1], count, endpoint=not closed)
    return np.column_stack([np.interp(want, at, ring[:, axis]) for axis in (0, 1)])


def respace(knots: Floats) -> Floats:
    """A closed line with its knots at equal distances again, on the cubics through its neighbours."""
    length = lengths(knots, closed=True)
    before = np.roll(length, 1)[:, None]
    after = length[:, None]
    ahead = segments(knots, closed=True)
    slope = (np.roll(ahead, 1, axis=0) * after / before + ahead * before / after) / (before + after)
    at = np.concatenate([[0.0], np.cumsum(length)])
    want = np.linspace(0.0, at[-1], len(knots), endpoint=False)
    k = np.minimum(np.searchsorted(at, want, side="right") - 1, len(knots) - 1)
    t = ((want - at[k]) / length[k])[:, None]
    follow = (k + 1) % len(knots)
    bow = length[k][:, None] * ((1 - t) * slope[k] - t * slope[follow]) - (1 - 2 * t) * ahead[k]
    spaced: Floats = knots[k] + t * ahead[k] + t * (1 - t) * bow
    return spaced


def _triples(rows: Floats, closed: bool) -> tuple[Floats, Floats, Floats]:
    if closed:
        return np.roll(rows, 1, axis=0), rows, np.roll(rows, -1, axis=0)
    return rows[:-2], rows[1:-1], rows[2:]


def _norm(vectors: Floats) -> Floats:
    norm: Floats = np.hypot(vectors[:, 0], vectors[:, 1])
    return norm


def _cross(a: Floats, b: Floats) -> Floats:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _dot(a: Floats, b: Floats) -> Floats:
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1]
