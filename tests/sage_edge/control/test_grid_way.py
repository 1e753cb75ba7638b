"""The way over a grid, against relaxation of all cells until nothing changes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge import native
from sage_edge.errors import ShapeError


def steps_from(cost, row, column):
    rows, columns = cost.shape
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            there = row + down, column + right
            if there == (row, column) or not (0 <= there[0] < rows and 0 <= there[1] < columns):
                continue
            beside = cost[row + down, column], cost[row, column + right]
            if down and right and math.inf in beside:
                continue
            yield there, math.hypot(down, right) * (cost[row, column] + cost[there]) / 2


def least_cost(cost, first, last):
    """Bellman and Ford: as slow as it is plain."""
    best = np.full(cost.shape, np.inf)
    best[first] = 0.0
    changed = True
    while changed:
        changed = False
        for cell in np.ndindex(cost.shape):
            if not math.isfinite(best[cell]):
                continue
            for there, price in steps_from(cost, *cell):
                if best[cell] + price < best[there] - 1e-12:
                    best[there], changed = best[cell] + price, True
    return best[last]


@settings(max_examples=80, deadline=None)
@given(data=st.data(), rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_a_way_is_open_in_all_its_steps_and_none_is_cheaper(data, rows, columns):
    cells = st.sampled_from([1.0, 1.0, 3.0, math.inf])
    cost = np.array(data.draw(st.lists(cells, min_size=rows * columns, max_size=rows * columns)))
    cost = cost.reshape(rows, columns)
    place = st.tuples(st.integers(0, rows - 1), st.integers(0, columns - 1))
    first, last = data.draw(place), data.draw(place)
    way = [tuple(cell) for cell in native.grid_way(cost, first, last).tolist()]
    cost[first] = cost[last] = 1.0
    least = least_cost(cost, first, last)
    if not math.isfinite(least):
        assert way == []
        return
    assert (way[0], way[-1]) == (first, last)
    taken = sum(dict(steps_from(cost, *here))[there] for here, there in itertools.pairwise(way))
    assert taken == pytest.approx(least)


def test_a_cell_outside_of_the_grid_is_refused():
    with pytest.raises(ShapeError, match="cells within"):
        native.grid_way(np.ones((3, 4)), (0, 0), (3, 0))
