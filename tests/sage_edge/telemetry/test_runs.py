from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sage_edge.telemetry import RunDirectory
from tests.sage_edge.telemetry.samples import run_info


def test_a_run_is_known_from_its_opening_to_its_closing():
    directory, info = RunDirectory(), run_info()
    directory.open(3, info)
    assert directory.get(3).info is info
    directory.close(3)
    assert directory.get(3) is None


def test_closing_a_run_twice_is_harmless():
    directory = RunDirectory()
    directory.open(3, run_info())
    directory.close(3)
    directory.close(3)
    assert len(directory) == 0


@given(st.integers(1, 20), st.integers(0, 60))
def test_a_directory_forgets_the_oldest_runs_first(capacity, runs):
    directory = RunDirectory(capacity)
    for run_id in range(runs):
        directory.open(run_id, run_info())
    known = [run_id for run_id in range(runs) if directory.get(run_id)]
    assert known == list(range(runs))[-capacity:]
    assert len(directory) == len(known)


def test_what_a_plugin_adds_to_a_state_stays_until_the_next_one_and_goes_with_the_run():
    directory = RunDirectory()
    directory.annotate(7, 0, {"lost": True})
    directory.open(7, run_info())
    run = directory.get(7)
    assert run.take_extra(0) is None
    for step in range(3):
        directory.annotate(7, step, {"at": step})
    assert run.take_extra(1) == {"at": 1}
    assert run.take_extra(0) is None
    assert run.take_extra(2) == run.take_extra(2) == {"at": 2}
    directory.close(7)
    directory.annotate(7, 3, {"late": True})
    assert run.take_extra(3) is None
