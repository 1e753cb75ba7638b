"""A board's sensors, on trees written from the documented layout and on this machine's own /sys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sage_edge.telemetry.board import Board
from sage_edge.telemetry.board.files import read_int, read_text
from tests.fixtures.sysfs_tree import lay_out, put

#: Rails in milliwatts by hand: millivolts x milliamperes / 1000.
EXPECTED = {
    "orin_nano": {
        "rails": {"VDD_IN": 6219.84, "VDD_CPU_GPU_CV": 1963.136, "VDD_SOC": 1482.368},
        "power_mw": 6219.84,
        "temp_c": 52.75,
        "gpu": (0.137, 306_000_000),
        "mode": "15W",
        "throttled": False,
        "l4t": "36.4.3",
    },
    "orin_nx": {
        "rails": {"VDD_IN": 14592.0, "VDD_CPU_GPU_CV": 5367.04, "VDD_SOC": 2760.192},
        "power_mw": 14592.0,
        "temp_c": 61.25,
        "gpu": (0.992, 918_000_000),
        "mode": "25W",
        "throttled": True,
        "l4t": "36.4.3",
    },
    "agx_orin": {
        "rails": {
            "VDD_GPU_SOC": 6144.0,
            "VDD_CPU_CV": 1688.192,
            "VIN_SYS_5V0": 4734.504,
            "VDDQ_VDD2_1V8AO": 1694.088,
        },
        "power_mw": 6144.0 + 1688.192 + 4734.504,
        "temp_c": 50.0,
        "gpu": (0.0, 1_300_500_000),
        "mode": "MODE_30W",
        "throttled": False,
        "l4t": "36.4.0",
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_jetson_tells_its_rails_heat_load_and_mode(name, tmp_path):
    expected = EXPECTED[name]
    board = Board(lay_out(name, tmp_path))
    sample = board.sample()
    assert {rail: power for (rail, _), power in sample.rails_mw.items()} == pytest.approx(expected["rails"])
    assert {chip for _, chip in sample.rails_mw} == {"ina3221"}
    assert sample.power_mw == pytest.approx(expected["power_mw"])
    assert sample.temp_c == expected["temp_c"]
    assert (sample.gpu_load, sample.gpu_frequency_hz) == expected["gpu"]
    assert sample.power_mode == expected["mode"]
    assert sample.throttled is expected["throttled"]
    assert board.l4t == expected["l4t"]
    assert board.model.startswith("NVIDIA Jetson")
    assert board.model.isprintable()


def test_the_whole_counts_no_rail_twice(tmp_path):
    sample = Board(lay_out("orin_nano", tmp_path)).sample()
    assert sample.power_mw < sum(sample.rails_mw.values())


def test_thors_one_channel_chip_measures_the_board(tmp_path):
    for file, content in {"name": "ina238", "power1_input": "18250000", "in0_input": "2"}.items():
        put(tmp_path, f"sys/class/hwmon/hwmon4/{file}", content)
    sample = Board(tmp_path).sample()
    assert sample.rails_mw == {("VIN", "ina238"): 18250.0}
    assert sample.power_mw == 18250.0


@pytest.mark.parametrize("content", ["[N/A]", "", "1e3", "0x10", "(offline)"])
def test_a_rail_that_cannot_be_read_is_absent_and_so_is_the_whole(tmp_path, content):
    board = Board(lay_out("orin_nano", tmp_path))
    put(tmp_path, "sys/class/hwmon/hwmon1/curr1_input", content)
    sample = board.sample()
    assert {rail for rail, _ in sample.rails_mw} == {"VDD_CPU_GPU_CV", "VDD_SOC"}
    assert sample.power_mw is None


def test_channels_that_are_not_connected_or_switched_off_are_no_rails(tmp_path):
    lay_out("agx_orin", tmp_path)
    put(tmp_path, "sys/class/hwmon/hwmon3/in2_enable", "0")
    assert {rail.name for rail in Board(tmp_path).rails} == {"VDD_GPU_SOC", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}
    assert Board(tmp_path).sample().power_mw is None


def test_zones_that_are_offline_or_disconnected_are_absent(tmp_path):
    lay_out("orin_nano", tmp_path)
    put(tmp_path, "sys/class/thermal/thermal_zone1/temp", "-256000")
    zones = Board(tmp_path).sample().temperatures_c
    assert set(zones) == {"cpu-thermal", "soc0-thermal", "soc1-thermal", "soc2-thermal", "tj-thermal"}


def test_two_zones_of_one_type_keep_apart(tmp_path):
    for number, temp in ((0, "27800"), (3, "29800")):
        put(tmp_path, f"sys/class/thermal/thermal_zone{number}/type", "acpitz")
        put(tmp_path, f"sys/class/thermal/thermal_zone{number}/temp", temp)
    assert Board(tmp_path).sample().temperatures_c == {"acpitz": 27.8, "acpitz-3": 29.8}


def test_an_over_current_event_throttles_the_sample_after_it_and_no_more(tmp_path):
    board = Board(lay_out("orin_nano", tmp_path))
    assert (board.sample().over_current_events, board.sample().throttled) == (7, False)
    put(tmp_path, "sys/class/hwmon/hwmon2/oc3_event_cnt", "8")
    assert board.sample().throttled is True
    assert board.sample().throttled is False


def test_a_running_fan_does_not_count_as_throttling(tmp_path):
    put(tmp_path, "sys/class/thermal/cooling_device0/type", "pwm-fan")
    put(tmp_path, "sys/class/thermal/cooling_device0/cur_state", "3")
    assert Board(tmp_path).sample().throttled is None


@pytest.mark.parametrize(
    ("status", "mode"), [("pmode:0002", "MAXN_SUPER"), ("pmode:0009", "9"), ("torn", "25W")]
)
def test_the_power_mode_is_the_noted_one_else_the_default(tmp_path, status, mode):
    lay_out("orin_nano", tmp_path)
    put(tmp_path, "var/lib/nvpmodel/status", status)
    assert Board(tmp_path).sample().power_mode == mode


def test_memory_is_in_bytes(tmp_path):
    sample = Board(lay_out("orin_nx", tmp_path)).sample()
    assert (sample.memory_bytes, sample.memory_available_bytes) == (16_064_812 * 1024, 9_437_184 * 1024)
    assert (sample.swap_bytes, sample.swap_free_bytes) == (8_032_404 * 1024, 8_032_404 * 1024)


def test_a_machine_without_sensors_tells_nothing_and_no_zeros(tmp_path):
    sample = Board(tmp_path).sample()
    assert (sample.rails_mw, sample.temperatures_c) == ({}, {})
    for name in sample.__dataclass_fields__:
        assert name in ("rails_mw", "temperatures_c") or getattr(sample, name) is None


def test_this_machines_own_files_are_read_as_they_are():
    sample = Board(Path("/")).sample()
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert sample.memory_bytes == int(fields["MemTotal"].split()[0]) * 1024
    assert 0 < sample.memory_available_bytes <= sample.memory_bytes
    zones = list(Path("/sys/class/thermal").glob("thermal_zone*"))
    assert len(sample.temperatures_c) <= len(zones)
    assert all(-100 < degrees_c < 200 for degrees_c in sample.temperatures_c.values())
    if not list(Path("/sys/class/hwmon").glob("*/curr1_input")):
        assert sample.power_mw is None


def test_a_sensor_that_answers_try_again_is_absent_at_once(tmp_path):
    os.mkfifo(tmp_path / "temp")
    reader = os.open(tmp_path / "temp", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(tmp_path / "temp", os.O_WRONLY)  # while somebody could write, a read says EAGAIN
    try:
        assert read_text(tmp_path / "temp") is None
    finally:
        os.close(writer)
        os.close(reader)


def test_a_folder_in_the_place_of_a_file_is_absent(tmp_path):
    assert read_int(tmp_path) is None
