"""From a line to a motion: when to be at each knot, so that speed and acceleration stay within limits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sage_edge.control import line
from sage_edge.control.course import Limits
from sage_edge.control.line import Floats


class Motion(NamedTuple):
    """A motion along n knots: the velocity is constant on each segment and changes at the knots.

    With ``dt = diff(time_s)`` and ``tau[k]`` the time from the middle of segment k - 1 to that of segment k,
    it satisfies, to rounding,

        position[k + 1] = position[k] + dt[k] * velocity[k]
        velocity[k]     = velocity[k - 1] + tau[k] * acceleration[k]

    An open line starts and ends at rest: ``velocity[-1] = 0`` and ``tau`` is half a segment there. A closed
    line repeats: its last segment leads to the first knot, and ``time_s`` has one entry more, the lap time.

    Attributes:
        time_s: float64 [n], or [n + 1] for a closed line.
        position: float64 [n, 2], metres.
        velocity: float64 [segments, 2], m/s.
        acceleration: float64 [n, 2], m/s^2.
        curvature: float64 [n], 1/m; 0 at the ends of an open line.
    """

    time_s: Floats
    position: Floats
    velocity: Floats
    acceleration: Floats
    curvature: Floats


def schedule(knots: Floats, limits: Limits, closed: bool) -> Motion:
    """The fastest motion along a line that this scheme finds: a pass forwards, a pass backwards.

    The passes bound the speed by the curvature and by what the acceleration leaves along the line; the
    whole is then slowed by the one factor that makes speed and acceleration exact. The line is kept.
    """
    step = line.segments(knots, closed)
    length = np.maximum(np.hypot(step[:, 0], step[:, 1]), 1e-9)
    bend = np.zeros(len(knots))
    turned = line.curvature(knots, line.normals(knots, closed), closed).kappa
    bend[slice(None) if closed else slice(1, -1)] = turned
    square = _squared_speeds(length, np.abs(bend), limits, closed)
    dt = length / np.sqrt(square)
    slower = _excess(step, dt, limits, closed)
    dt = dt * slower
    velocity, acceleration = _derivatives(step, dt, closed)
    return Motion(np.concatenate([[0.0], np.cumsum(dt)]), knots, velocity, acceleration, bend)


def _squared_speeds(length: Floats, bend: Floats, limits: Limits, closed: bool) -> Floats:
    """Squared speed on each segment."""
    most = limits.acceleration_m_s2
    after = np.roll(bend, -1) if closed else bend[1:]
    turn = np.maximum(bend[: len(length)], after)
    cap = np.minimum(limits.speed_m_s**2, 0.95 * most / np.maximum(turn, 1e-9))
    gain = (length + np.roll(length, 1)).tolist()  # twice the way from middle to middle
    caps, turns = cap.tolist(), turn.tolist()
    if not closed:
        caps[0], caps[-1] = min(caps[0], most * length[0] / 2), min(caps[-1], most * length[-1] / 2)
    count = len(caps)
    for order in (range(1, count), range(count - 2, -1, -1)) if not closed else _laps(count):
        behind = (order[0] - order.step) % count
        for k in order:
            way = gain[k] if order.step > 0 else gain[(k + 1) % count]
            slow = caps[behind]
            across = min(turns[k] * slow, most)
            caps[k] = min(caps[k], slow + way * (most * most - across * across) ** 0.5)
            behind = k
    return np.array(caps)


def _laps(count: int) -> tuple[range, ...]:
    """Two laps each way, as the first one begins at a speed that is not yet bounded."""
    forwards, backwards = range(count), range(count - 1, -1, -1)
    return forwards, forwards, backwards, backwards


def _derivatives(step: Floats, dt: Floats, closed: bool) -> tuple[Floats, Floats]:
    velocity = step / dt[:, None]
    if closed:
        change = velocity - np.roll(velocity, 1, axis=0)
        tau = (dt + np.roll(dt, 1)) / 2
    else:
        rest = np.zeros((1, 2))
        change = np.diff(np.vstack([rest, velocity, rest]), axis=0)
        tau = np.concatenate([[dt[0] / 2], (dt[1:] + dt[:-1]) / 2, [dt[-1] / 2]])
    return velocity, change / tau[:, None]


def _excess(step: Floats, dt: Floats, limits: Limits, closed: bool) -> float:
    """By what factor the times must grow; speed falls with it, acceleration with its square."""
    velocity, acceleration = _derivatives(step, dt, closed)
    speed = np.hypot(velocity[:, 0], velocity[:, 1]).max() / limits.speed_m_s
    force = np.hypot(acceleration[:, 0], acceleration[:, 1]).max() / limits.acceleration_m_s2
    return max(1.0, float(speed), float(np.sqrt(force)))
