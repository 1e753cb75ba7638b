"""Where a line may run: a world of discs between a start and a goal, or a closed track between two edges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from sage_edge import native
from sage_edge.control import line
from sage_edge.control.line import Floats
from sage_edge.control.search import seed_line
from sage_edge.errors import InfeasibleError, ParameterError, ShapeError

#: Bound of a corridor where nothing is near, metres.
_OPEN_M = 1e3
#: Largest limit of a vehicle, metre of a plane and weight: far beyond use, and its square is still a double.
_LARGEST = 1e9
#: Segments of a track's edge to either side of a knot, among which its normal meets the edge.
_WINDOW = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What the vehicle can do.

    Attributes:
        speed_m_s: Largest speed.
        acceleration_m_s2: Largest length of the acceleration, along and across together.
        curvature_1_m: Largest curvature of its path; infinite when it can turn on the spot.
    """

    speed_m_s: float = 2.0
    acceleration_m_s2: float = 2.0
    curvature_1_m: float = float("inf")

    def __post_init__(self) -> None:
        """Check the ranges; raises ParameterError naming the limit."""
        for name in self.__slots__:
            value = getattr(self, name)
            if value == float("inf") and name == "curvature_1_m":
                continue
            if not 1 / _LARGEST <= value <= _LARGEST:
                raise ParameterError(
                    f"{name}: expected a number from {1 / _LARGEST:g} to {_LARGEST:g}, got {value}"
                )


class Course(ABC):
    """The room for a line, and what a good line is. Immutable.

    Attributes:
        closed: Whether the line is a loop.
        limits: The vehicle's.
        length_weight: Cost of a metre of line.
        bending_weight: Cost of 1/m of ``line.bending``.
        reach_segments: A knot moves by at most so many mean segments in a round.
        tolerance_m: Violation that counts as none.
    """

    closed: bool
    limits: Limits
    length_weight: float
    bending_weight: float
    reach_segments: float
    tolerance_m: float

    @abstractmethod
    def first_line(self) -> Floats:
        """A line to begin with: float64 [n, 2], metres."""

    @abstractmethod
    def normals(self, knots: Floats) -> Floats:
        """Unit vectors [n, 2] along which the knots of a line are moved."""

    @abstractmethod
    def corridor(self, knots: Floats, normal: Floats) -> tuple[Floats, Floats]:
        """How far each knot may move along its normal: least and most, float64 [n], metres."""

    @abstractmethod
    def intrusion_m(self, knots: Floats) -> float:
        """How deep a line runs where it must not, metres; 0 or less when it does not."""

    @abstractmethod
    def clamp(self, knots: Floats) -> Floats:
        """The line with what is fixed put back in its place."""


@dataclass(frozen=True)
class World(Course):
    """Discs in the plane, and a robot that is a disc too.

    Attributes:
        start, goal: float64 [2], metres.
        obstacles: float64 [m, 3], x, y and radius, metres.
        robot_radius_m: Radius of the robot.
        limits: The robot's.
        knots: Knots of the line.
        bending_weight: Metres of line that a curvature cost of 1/m is worth.
        cell_m: Grid on which the first line is searched.
        tolerance_m: Violation that counts as none.
        discs: The obstacles as the robot's centre meets them: its radius added.

    Raises:
        ShapeError: An array has another shape, or holds a number that is not finite.
        ParameterError: A number is out of range.
        InfeasibleError: Start or goal is inside an obstacle.
    """

    start: ArrayLike
    goal: ArrayLike
    obstacles: ArrayLike
    robot_radius_m: float
    limits: Limits = field(default_factory=Limits)
    knots: int = 90
    bending_weight: float = 0.3
    cell_m: float = 0.1
    tolerance_m: float = 1e-6
    discs: Floats = field(init=False, repr=False)

    closed = False
    length_weight = 1.0
    reach_segments = 1.5

    def __post_init__(self) -> None:
        """Check everything, once."""
        start, goal = (_points(name, getattr(self, name), 2, one=True) for name in ("start", "goal"))
        obstacles = _points("obstacles", self.obstacles, 3)
        for name, value in (("robot_radius_m", self.robot_radius_m), ("bending_weight", self.bending_weight)):
            if not 0 <= value <= _LARGEST:
                raise ParameterError(f"{name}: expected 0 to {_LARGEST:g}, got {value}")
        if not 8 <= self.knots <= 512:
            raise ParameterError(f"knots: expected 8 to 512, got {self.knots}")
        if not 0 < self.cell_m <= _LARGEST:
            raise ParameterError(f"cell_m: expected more than 0 and at most {_LARGEST:g}, got {self.cell_m}")
        if (obstacles[:, 2] < 0).any():
            raise ParameterError(
                f"obstacles: expected radii of 0 or more, got {float(obstacles[:, 2].min())}"
            )
        if np.hypot(*(goal - start)) < 1e-6:
            raise ParameterError("goal: expected another place than the start")
        discs = obstacles + np.array([0.0, 0.0, self.robot_radius_m])
        for name, array in (("start", start), ("goal", goal), ("obstacles", obstacles), ("discs", discs)):
            object.__setattr__(self, name, array)
        for name, point in (("start", start), ("goal", goal)):
            depth_m = -line.clearance(np.vstack([point, point]), discs)
            if depth_m > self.tolerance_m:
                raise InfeasibleError(
                    f"{name}: the robot of radius {self.robot_radius_m:g} m is {depth_m:.3g} m "
                    "inside an obstacle"
                )

    def first_line(self) -> Floats:
        """The shortest way over a grid, rounded off.

        Raises:
            InfeasibleError: No gap lets the robot through, or the grid finds none; it says which.
        """
        start, goal = np.asarray(self.start), np.asarray(self.goal)
        seed = seed_line(start, goal, self.discs, self.cell_m)
        if seed is None:
            raise InfeasibleError(
                f"goal: no way from {start} to {goal} that a robot of radius "
                f"{self.robot_radius_m:g} m fits through"
            )
        knots = line.resample(seed, self.knots, closed=False)
        for _ in range(2):  # takes the corners of the grid off
            knots[1:-1] = (knots[:-2] + 2 * knots[1:-1] + knots[2:]) / 4
        return knots

    def normals(self, knots: Floats) -> Floats:
        """The line's own."""
        return line.normals(knots, closed=False)

    def corridor(self, knots: Floats, normal: Floats) -> tuple[Floats, Floats]:
        """Up to the nearest disc on either side, with room for the sag of the segments between knots."""
        if not len(self.discs):
            return np.full(len(knots), -_OPEN_M), np.full(len(knots), _OPEN_M)
        sag_m = (line.lengths(knots, closed=False).max() / 2) ** 2 / (2 * max(self.discs[:, 2].min(), 1e-3))
        to_x, to_y = (self.discs[:, axis] - knots[:, axis, None] for axis in (0, 1))
        aside = to_x * normal[:, :1] + to_y * normal[:, 1:]
        ahead = to_x * normal[:, 1:] - to_y * normal[:, :1]
        square = np.square(self.discs[:, 2] + min(sag_m, 0.1)) - np.square(ahead)
        half = np.sqrt(np.maximum(square, 0.0))
        near = square > 0
        high = np.where(near & (aside > 0), aside - half, _OPEN_M).min(axis=1)
        low = np.where(near & (aside <= 0), aside + half, -_OPEN_M).max(axis=1)
        middle = (low + high) / 2
        return np.minimum(low, middle), np.maximum(high, middle)

    def intrusion_m(self, knots: Floats) -> float:
        """Depth inside the nearest disc, segments included."""
        return -line.clearance(knots, self.discs)

    def clamp(self, knots: Floats) -> Floats:
        """Start and goal."""
        return np.vstack([self.start, knots[1:-1], self.goal])


@dataclass(frozen=True)
class Track(Course):
    """A closed track: a centre line with a width to either side.

    Attributes:
        centre: float64 [n, 2], metres, in driving direction; the last point is not the first again.
        right_m, left_m: float64 [n], width of the track to the right and to the left of the centre.
        margin_m: Distance that the line keeps from the edges, such as half the vehicle's width.
        limits: The vehicle's.
        tolerance_m: Violation that counts as none.
        edges: The left and the right edge, float64 [n, 2] each.

    Raises:
        ShapeError: An array has another shape, or holds a number that is not finite.
        ParameterError: A number is out of range.
        InfeasibleError: The track is narrower than two margins.
    """

    centre: ArrayLike
    right_m: ArrayLike
    left_m: ArrayLike
    margin_m: float = 0.75
    limits: Limits = field(default_factory=lambda: Limits(speed_m_s=80.0, acceleration_m_s2=10.0))
    tolerance_m: float = 0.01
    edges: tuple[Floats, Floats] = field(init=False, repr=False)

    closed = True
    length_weight = 0.0
    bending_weight = 1.0
    reach_segments = 0.2

    def __post_init__(self) -> None:
        """Check everything, once."""
        centre = _points("centre", self.centre, 2)
        right, left = (np.asarray(side, np.float64) for side in (self.right_m, self.left_m))
        if len(centre) < 8 or right.shape != (len(centre),) or left.shape != right.shape:
            raise ShapeError(
                f"track: expected centre [n, 2] with n >= 8 and widths [n], "
                f"got {list(centre.shape)}, {list(right.shape)} and {list(left.shape)}"
            )
        if line.lengths(centre, closed=True).min() < 1e-6:
            raise ParameterError("centre: expected different neighbours; leave out a repeated last point")
        narrow = np.flatnonzero(~(right + left >= 2 * self.margin_m))
        if len(narrow):
            width_m = float((right + left)[narrow[0]])
            raise InfeasibleError(
                f"track: narrower than twice the margin of {self.margin_m} m, "
                f"with {width_m} m at point {narrow[0]}"
            )
        normal = line.normals(centre, closed=True)
        edges = (centre + left[:, None] * normal, centre - right[:, None] * normal)
        for name, value in (("centre", centre), ("edges", edges)):
            object.__setattr__(self, name, value)

    def first_line(self) -> Floats:
        """The line with the least squared second differences, found in three rounds.

        That is convex as long as the normals stay, as the curvature cost itself is not: a hairpin has a
        locally best line along its outer edge, which rounds that begin at the centre would end in.
        """
        knots = np.array(self.centre)
        for _ in range(3):
            knots = self._straightened(knots)
        return knots

    def _straightened(self, knots: Floats) -> Floats:
        normal = self.normals(knots)
        low, high = self.corridor(knots, normal)
        bow = np.roll(knots, 1, axis=0) - 2 * knots + np.roll(knots, -1, axis=0)
        pull = ((np.roll(bow, 1, axis=0) - 2 * bow + np.roll(bow, -1, axis=0)) * normal).sum(axis=1)
        meet = [(normal * np.roll(normal, -ahead, axis=0)).sum(axis=1) for ahead in range(3)]
        P = np.array([[6.0], [-4.0], [1.0]]) * meet
        move, _ = native.solve_chain_qp(P, pull, low, high, closed=True)
        return self.clamp(line.respace(knots + move[:, None] * normal))

    def normals(self, knots: Floats) -> Floats:
        """The line's own."""
        return line.normals(knots, closed=True)

    def corridor(self, knots: Floats, normal: Floats) -> tuple[Floats, Floats]:
        """Up to where the normal meets the edges, less the margin across them."""
        centre = np.asarray(self.centre)
        # Knots and centre begin together and stay in step, so that a track may cross itself.
        beside = np.arange(len(knots))[:, None] + np.arange(-2 * _WINDOW, 2 * _WINDOW + 1)
        away = np.take(centre, beside, axis=0, mode="wrap") - knots[:, None]
        nearest = np.square(away).sum(axis=2).argmin(axis=1)[:, None]
        near = np.take_along_axis(beside, nearest, axis=1) + np.arange(-_WINDOW, _WINDOW)
        left, right = (
            _meet(knots, side, np.take(edge, near, axis=0, mode="wrap"), step, self.margin_m)
            for side, edge, step in (
                (normal, self.edges[0], np.take(_ahead(self.edges[0]), near, axis=0, mode="wrap")),
                (-normal, self.edges[1], np.take(_ahead(self.edges[1]), near, axis=0, mode="wrap")),
            )
        )
        middle = (left - right) / 2
        return np.minimum(-right, middle), np.maximum(left, middle)

    def intrusion_m(self, knots: Floats) -> float:
        """How far a knot would have to move along its normal to be where edges and margin leave room."""
        low, high = self.corridor(knots, self.normals(knots))
        return float(np.maximum(low, -high).max())

    def clamp(self, knots: Floats) -> Floats:
        """Each knot that is too near to an edge moved along its normal to where it is not."""
        normal = self.normals(knots)
        low, high = self.corridor(knots, normal)
        moved: Floats = knots + np.clip(0.0, low, high)[:, None] * normal
        return moved


def _ahead(points: Floats) -> Floats:
    return np.roll(points, -1, axis=0) - points


def _meet(knots: Floats, ray: Floats, begin: Floats, step: Floats, margin_m: float) -> Floats:
    """How far each knot may move along its ray until it is as near as the margin to the segment that is met.

    Args:
        knots: float64 [n, 2].
        ray: float64 [n, 2], unit vectors.
        begin: float64 [n, segments, 2], where the segments begin among which each ray meets one.
        step: float64 [n, segments, 2], from there to where they end.
        margin_m: Distance to keep, across the segment.
    """
    across = ray[:, None, 0] * step[..., 1] - ray[:, None, 1] * step[..., 0]
    across = np.where(np.abs(across) < 1e-12, 1e-12, across)
    to_x, to_y = begin[..., 0] - knots[:, None, 0], begin[..., 1] - knots[:, None, 1]
    way = (to_x * step[..., 1] - to_y * step[..., 0]) / across
    share = (to_x * ray[:, None, 1] - to_y * ray[:, None, 0]) / across
    met = (share >= 0) & (share <= 1)
    nearest = np.where(met, np.abs(way), np.inf).argmin(axis=1)[:, None]
    slant = np.hypot(step[..., 0], step[..., 1]) / np.abs(across)
    kept = np.where(met, way - margin_m * slant, _OPEN_M)
    return np.take_along_axis(kept, nearest, axis=1)[:, 0]


def _points(name: str, values: ArrayLike, columns: int, *, one: bool = False) -> Floats:
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError) as exc:
        raise ShapeError(f"{name}: expected numbers, got {type(values).__name__}: {exc}") from exc
    if not one and array.size == 0:
        array = array.reshape(0, columns)
    expected = [columns] if one else ["n", columns]
    if array.ndim != (1 if one else 2) or array.shape[-1] != columns:
        raise ShapeError(f"{name}: expected {expected}, got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ShapeError(f"{name}: expected finite numbers, got NaN or infinity")
    if (largest := float(np.abs(array).max(initial=0))) > _LARGEST:
        raise ParameterError(f"{name}: expected numbers up to {_LARGEST:g}, got {largest}")
    return array
