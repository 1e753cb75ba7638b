"""A sample of the worlds and tracks that the benchmarks plan through; needs the data sets."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.control import barn, racetracks


def test_worlds_are_passed_without_a_collision_that_is_called_a_success(data_folder):
    sample = list(barn.worlds(data_folder / "control").values())[::12]
    rows = [barn.measure(obstacles, path, deadline_ms=1000.0) for obstacles, path in sample]
    assert not any(row["claimed_but_wrong"] for row in rows)
    assert np.mean([row["right"] for row in rows]) >= 0.95


@pytest.mark.parametrize("name", ["BrandsHatch", "Suzuka"])
def test_a_racing_line_bends_at_most_two_percent_more_than_the_reference(data_folder, name):
    archive = np.load(data_folder / "control" / "racetracks.npz")
    row = racetracks.measure(archive[f"{name}/track"], archive[f"{name}/raceline"], racetracks.MARGIN_M)
    assert row["feasible"]
    assert row["ratio"] <= 1.02
