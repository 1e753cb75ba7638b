from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.vision.trajectory import Trajectories
from engines.vision.trust import KNOTS, decreasing_fit, trust_table

pytestmark = pytest.mark.training

points = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=12)


def isotonic_by_min_max(y):
    """The closed form of the best decreasing fit: min over starts of max over ends of the mean between."""
    n = len(y)
    return [min(max(np.mean(y[i : j + 1]) for j in range(k, n)) for i in range(k + 1)) for k in range(n)]


@given(points)
def test_the_fit_is_the_nearest_decreasing_function(pairs):
    x, y = (np.array(values) for values in zip(*sorted(pairs, key=lambda pair: pair[0]), strict=True))
    x = x + np.arange(len(x))  # no ties
    pools_x, pools_y = decreasing_fit(x, y)
    steps = np.abs(pools_x[:, None] - x).argmin(axis=0)
    assert (np.diff(pools_y) <= 1e-12).all()
    assert set(np.round(pools_y[steps], 9)) <= set(np.round(isotonic_by_min_max(y), 9))
    assert np.sort(np.unique(np.round(isotonic_by_min_max(y), 9)))[::-1].tolist() == pytest.approx(
        np.unique(np.round(pools_y, 9))[::-1].tolist(), abs=1e-8
    )


def test_the_table_tells_the_quality_of_each_energy():
    perfect, useless = np.diag([8, 8]), np.array([[0, 8], [8, 0]])
    run = Trajectories(np.array([[0.4, 0.2]]), np.array([[useless, perfect]]))
    assert trust_table(run, scale=0.4) == {"E_norm": [0.5, 1.0], "quality": [1.0, 0.0]}


def test_the_table_stays_short():
    rng = np.random.default_rng(0)
    confusions = rng.integers(0, 50, (40, 9, 3, 3))
    table = trust_table(Trajectories(rng.random((40, 9)), confusions), scale=1.0)
    assert len(table["E_norm"]) == len(table["quality"]) <= KNOTS
