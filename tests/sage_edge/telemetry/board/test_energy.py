"""The energy of a board: continuous, never falling, and unknown rather than wrong."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.telemetry.board import Board, RailMeter, find_meter
from tests.fakes import FakeClock
from tests.fixtures.sysfs_tree import lay_out, put


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    """A sample without any value."""
    return Board(tmp_path_factory.mktemp("nothing")).sample()


def with_power(blank, power_mw):
    rails = {} if power_mw is None else {("VDD_IN", "ina3221"): power_mw}
    return dataclasses.replace(blank, rails_mw=rails)


def meter_on(clock, stale_s=3.0):
    return RailMeter("ina3221:VDD_IN", "module", stale_s=stale_s, clock=clock)


def test_power_is_held_between_samples(blank):
    clock = FakeClock()
    meter = meter_on(clock)
    meter.observe(with_power(blank, 5000.0))
    clock.advance(0.02)
    assert meter.energy_uj() == 100_000  # 5 W for 20 ms
    clock.advance(0.98)
    meter.observe(with_power(blank, 10_000.0))
    assert meter.energy_uj() == 5_000_000
    clock.advance(0.5)
    assert meter.energy_uj() == 10_000_000


def test_it_is_unknown_before_the_first_sample_when_stale_and_while_a_part_is_missing(blank):
    clock = FakeClock()
    meter = meter_on(clock)
    assert meter.energy_uj() is None
    meter.observe(with_power(blank, 1000.0))
    clock.advance(3.1)
    assert meter.energy_uj() is None
    meter.observe(with_power(blank, None))
    assert meter.energy_uj() is None
    clock.advance(100)
    meter.observe(with_power(blank, 1000.0))
    assert meter.energy_uj() == 3_000_000  # the three seconds for which the first sample held, and no gap


@given(
    st.lists(
        st.tuples(st.none() | st.floats(-50, 60_000), st.integers(0, 5_000_000_000), st.booleans()),
        max_size=30,
    )
)
def test_it_never_falls(blank, events):
    clock = FakeClock()
    meter = meter_on(clock)
    highest = 0
    for power_mw, wait_ns, is_sampled in events:
        clock.advance(wait_ns / 1e9)
        if is_sampled:
            meter.observe(with_power(blank, power_mw))
        energy_uj = meter.energy_uj()
        if energy_uj is not None:
            assert energy_uj >= highest
            highest = energy_uj


def put_rapl(root, number, name, energy_uj, range_uj=1_000_000):
    zone = f"sys/class/powercap/intel-rapl:{number}"
    put(root, f"{zone}/name", name)
    put(root, f"{zone}/energy_uj", energy_uj)
    put(root, f"{zone}/max_energy_range_uj", range_uj)


def found(root, clock=None):
    return find_meter(Board(root), stale_s=3.0, clock=clock or FakeClock())


def test_the_processors_counters_go_on_when_they_turn(tmp_path, blank):
    put_rapl(tmp_path, 0, "package-0", 999_990)
    put_rapl(tmp_path, 1, "package-1", 5)
    meter = found(tmp_path)
    assert (meter.source, meter.covers) == ("rapl:package-0+package-1", "cpu")
    assert meter.energy_uj() == 0
    put_rapl(tmp_path, 0, "package-0", 40)  # turned: 10 to the end, 40 from the start
    put_rapl(tmp_path, 1, "package-1", 25)
    meter.observe(blank)
    assert meter.energy_uj() == 50 + 20
    put(tmp_path, "sys/class/powercap/intel-rapl:1/energy_uj", "(offline)")
    assert meter.energy_uj() is None
    put_rapl(tmp_path, 1, "package-1", 30)
    assert meter.energy_uj() == 75


def test_the_platforms_own_counter_is_not_added_to_its_packages(tmp_path):
    put_rapl(tmp_path, 0, "package-0", 10)
    put_rapl(tmp_path, 1, "psys", 100)
    put_rapl(tmp_path, "0:0", "core", 7)
    meter = found(tmp_path)
    assert (meter.source, meter.covers) == ("rapl:psys", "board")


def test_counters_that_only_root_may_read_are_no_meter(tmp_path):
    put_rapl(tmp_path, 0, "package-0", 10)
    put_rapl(tmp_path, 1, "package-1", "(offline)")
    assert found(tmp_path) is None


@pytest.mark.parametrize(
    ("board", "source"),
    [
        ("orin_nano", "ina3221:VDD_IN"),
        ("orin_nx", "ina3221:VDD_IN"),
        ("agx_orin", "ina3221:VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0"),
    ],
)
def test_a_jetsons_meter_names_the_rails_that_it_sums(tmp_path, board, source):
    meter = found(lay_out(board, tmp_path))
    assert (meter.source, meter.covers) == (source, "module")
