"""A first line from start to goal: the shortest way over a grid, through gaps that the robot fits."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sage_edge import native
from sage_edge.control import line
from sage_edge.control.line import PIECE, Floats
from sage_edge.errors import InfeasibleError

#: Largest number of grid cells of the first search; a world that needs more gets a coarser grid.
MAX_CELLS = 40_000
#: How often the grid is made twice as fine where it finds no way, or only one through the middle of a disc,
#: though there is one.
REFINEMENTS = 2
#: What a metre costs where the robot only just fits, against one in the open.
_TIGHT = 3.0
_DIAGONAL = math.sqrt(2.0)
_CLOSED = math.inf


def seed_line(start: Floats, goal: Floats, discs: Floats, cell_m: float) -> Floats | None:
    """A polyline from start to goal around discs.

    Where the grid finds no way, geometry decides whether there is one (see ``is_closed``): if so the grid is
    too coarse, and is refined.

    Two discs that overlap leave no way between them: the grid is closed along the line that joins their
    centres. Elsewhere a cell is open if some point within it is free, so that a gap is found however
    narrow it is; such cells cost more.

    Args:
        start: float64 [2], metres.
        goal: float64 [2], metres.
        discs: float64 [m, 3], x, y and radius; the robot's radius included.
        cell_m: Width of a grid cell, metres.

    Returns:
        float64 [n, 2] from start to goal, or None when every way is closed.

    Raises:
        InfeasibleError: There is a way, but the finest grid is too coarse for it.
    """
    low = np.minimum(start, goal)
    high = np.maximum(start, goal)
    if len(discs):
        low = np.minimum(low, (discs[:, :2] - discs[:, 2:]).min(axis=0))
        high = np.maximum(high, (discs[:, :2] + discs[:, 2:]).max(axis=0))
    wanted_m = cell_m
    cell_m = max(cell_m, math.sqrt(float(np.prod(high - low + 4 * cell_m)) / MAX_CELLS))
    least_m = float(discs[:, 2].min(initial=math.inf))
    for refinement in range(REFINEMENTS + 1):
        cells_m = cell_m / 2**refinement
        seed = _way(start, goal, discs, low - 2 * cells_m, high + 2 * cells_m, cells_m)
        # A grid that is fine for the discs knows closed from open by itself.
        if refinement == 0 and (seed is None or cells_m > least_m) and is_closed(start, goal, discs):
            return None
        if seed is not None and (cells_m <= wanted_m or line.clearance(seed, discs) > -least_m / 2):
            return seed
    raise InfeasibleError(
        f"goal: there is a way, but so narrow or winding that a grid of {cells_m:.3g} m is too coarse to "
        "find it; leave out what is far away, or make the robot smaller"
    )


def is_closed(start: Floats, goal: Floats, discs: Floats) -> bool:
    """Whether discs that overlap keep start and goal, which are outside of them, apart: exactly.

    They do if a ring of them runs around one of both, so that the polygon through its centres crosses the
    straight line from start to goal an odd number of times.

    Args:
        start: float64 [2].
        goal: float64 [2].
        discs: float64 [m, 3], x, y and radius.
    """
    if not len(discs):
        return False
    centres, radius = discs[:, :2], discs[:, 2]
    ahead = goal - start
    side = _cross(ahead, centres - start) >= 0
    parity = np.full(len(discs), -1)
    for root in range(len(discs)):
        if parity[root] >= 0:
            continue
        parity[root] = 0
        waiting = [root]
        while waiting:
            here = waiting.pop()
            to = centres - centres[here]
            touching = np.hypot(to[:, 0], to[:, 1]) < radius + radius[here]
            beyond = _cross(to, start - centres[here]) >= 0, _cross(to, goal - centres[here]) >= 0
            crosses = (side != side[here]) & (beyond[0] != beyond[1])
            reached = parity[here] ^ crosses
            if np.any(touching & (parity >= 0) & (parity != reached)):
                return True
            fresh = np.flatnonzero(touching & (parity < 0))
            parity[fresh] = reached[fresh]
            waiting.extend(fresh.tolist())
    return False


def _cross(a: Floats, b: Floats) -> Floats:
    product: Floats = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return product


def _way(
    start: Floats, goal: Floats, discs: Floats, low: Floats, high: Floats, cell_m: float
) -> Floats | None:
    """What a grid of these cells over the rectangle from low to high finds."""
    shape = np.ceil((high - low) / cell_m).astype(int) + 1
    cost = _cost(discs, low, cell_m, (int(shape[0]), int(shape[1])))
    first, last = (np.rint((point - low) / cell_m).astype(int) for point in (start, goal))
    cells = native.grid_way(cost, (int(first[0]), int(first[1])), (int(last[0]), int(last[1])))
    if not len(cells):
        return None
    inner = low + cell_m * cells
    return np.vstack([start, inner[1:-1], goal])


def _cost(discs: Floats, low: Floats, cell_m: float, shape: tuple[int, int]) -> Floats:
    """Cost of a metre in each cell; infinite where it is closed."""
    cost = np.ones(shape)
    if not len(discs):
        return cost
    slack = cell_m / _DIAGONAL
    by_size = discs[np.argsort(-discs[:, 2])]
    first = 0
    while first < len(discs):  # together with those that reach about as far
        reach = math.ceil((float(by_size[first, 2]) + slack) / cell_m)
        some = by_size[first : first + max(1, PIECE // (2 * reach + 1) ** 2)]
        first += len(some)
        cells, gap = _near(some, low, cell_m, shape, reach)
        tight = cells[gap < slack]
        cost.ravel()[tight] = np.maximum(cost.ravel()[tight], _TIGHT)
        cost.ravel()[cells[gap < -slack]] = _CLOSED
    for points in _walls(discs, slack):
        walls = np.rint((points - low) / cell_m).astype(int)
        cost[walls[:, 0], walls[:, 1]] = _CLOSED
    return cost


def _near(
    discs: Floats, low: Floats, cell_m: float, shape: tuple[int, int], reach: int
) -> tuple[NDArray[np.int64], Floats]:
    """Flat indices of the cells around each disc, and their distances from its rim; cells come repeatedly.

    ``reach`` is half the side of the square that is looked at, in cells.
    """
    across = np.arange(-reach, reach + 1)
    centre = np.rint((discs[:, :2] - low) / cell_m).astype(int)
    x, y = (np.clip(centre[:, axis, None] + across, 0, size - 1) for axis, size in enumerate(shape))
    off_x, off_y = (
        np.square(low[axis] + cell_m * cells - discs[:, axis, None]) for axis, cells in enumerate((x, y))
    )
    gap = np.sqrt(off_x[:, :, None] + off_y[:, None, :]) - discs[:, 2, None, None]
    cells = x[:, :, None] * shape[1] + y[:, None, :]
    return cells.ravel(), gap.ravel()


def _walls(discs: Floats, slack: float) -> Iterator[Floats]:
    """Points [n, 2] where the line that joins two overlapping discs is not closed by the discs' own cells."""
    centres, radius = discs[:, :2], discs[:, 2]
    count = max(1, PIECE // len(discs))
    for row in range(0, len(discs), count):
        some = slice(row, row + count)
        reach = radius[some, None] + radius[None, :]
        square = np.square(centres[some, None, 0] - centres[None, :, 0])
        square += np.square(centres[some, None, 1] - centres[None, :, 1])
        is_open = square > np.square(np.maximum(reach - 2 * slack, 0.0))
        first, second = np.nonzero(np.triu(is_open & (square < reach**2), row))
        length = np.sqrt(square[first, second])
        first += row
        along = centres[second] - centres[first]
        middle = (radius[first] + length - radius[second]) / 2  # of the gap that the two rims would leave
        at = (middle[:, None] + slack * np.linspace(-1.0, 1.0, 6)) / length[:, None]
        points: Floats = centres[first, None] + at[:, :, None] * along[:, None]
        yield points.reshape(-1, 2)
