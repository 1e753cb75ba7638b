"""Settings that ask for more memory than there is are refused before anything is loaded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge import Settings
from sage_edge.errors import ConfigError
from sage_edge.orchestrator.fit import budget_bytes, check_fits, needed_bytes
from sage_edge.plugins import make_plugins
from sage_edge.telemetry.board import available_bytes
from tests.fixtures.sysfs_tree import lay_out, put

MIB = 1 << 20
VISION = make_plugins(Settings())


@pytest.mark.parametrize("plugins", [("vision",), ("vision", "control")])
def test_the_defaults_fit_into_a_quarter_of_a_gigabyte(plugins):
    settings = Settings(plugins=plugins)
    check_fits(settings, make_plugins(settings), 256 * MIB)


@pytest.mark.parametrize(
    ("key", "value"),
    [("slots", 4096), ("queue_size", 1 << 20), ("mailbox_records", 1 << 30), ("telemetry_memory", 1 << 28)],
)
def test_the_setting_that_asks_for_most_is_named_with_what_it_needs(key, value):
    with pytest.raises(ConfigError, match=rf"^{key}: {value} needs \d+ MiB at least, .* of 8192 MiB"):
        check_fits(Settings(**{key: value}), VISION, 8192 * MIB)


def test_nothing_is_refused_where_memory_is_not_known():
    check_fits(Settings(slots=1 << 20), VISION, None)


@given(st.integers(1, 512), st.integers(1, 512), st.integers(0, 1 << 36))
def test_more_of_anything_never_fits_where_less_did_not(slots, more, free):
    def fits(count):
        try:
            check_fits(Settings(slots=count), VISION, free)
        except ConfigError:
            return False
        return True

    assert fits(slots) or not fits(slots + more)
    less, most = (needed_bytes(Settings(slots=count), VISION)["slots"] for count in (slots, slots + more))
    assert most > less


def test_a_containers_limit_counts_when_it_leaves_less(tmp_path):
    lay_out("orin_nano", tmp_path)
    assert available_bytes(tmp_path) == 5_242_880 * 1024
    put(tmp_path, "sys/fs/cgroup/memory.max", "max")
    put(tmp_path, "sys/fs/cgroup/memory.current", str(100 * MIB))
    assert available_bytes(tmp_path) == 5_242_880 * 1024
    put(tmp_path, "sys/fs/cgroup/memory.max", str(512 * MIB))
    assert available_bytes(tmp_path) == 412 * MIB
    put(tmp_path, "sys/fs/cgroup/memory.stat", f"anon 5\nfile 7\ninactive_file {30 * MIB}\nactive_file 3")
    assert available_bytes(tmp_path) == 442 * MIB  # what only caches files makes way


def test_the_older_control_groups_count_too(tmp_path):
    put(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", str(256 * MIB))
    put(tmp_path, "sys/fs/cgroup/memory/memory.usage_in_bytes", str(300 * MIB))
    assert available_bytes(tmp_path) == 0
    assert available_bytes(tmp_path / "nowhere") is None


def test_the_limit_of_the_own_control_group_counts_and_those_above_it(tmp_path):
    put(tmp_path, "proc/self/cgroup", "4:memory:/system/board/edge\n0::/ignored")
    groups = "sys/fs/cgroup/memory"
    for name, limit in (("system/board/edge", 512), ("system", 300), ("other", 1)):
        put(tmp_path, f"{groups}/{name}/memory.limit_in_bytes", str(limit * MIB))
        put(tmp_path, f"{groups}/{name}/memory.usage_in_bytes", str(100 * MIB))
    assert available_bytes(tmp_path) == 200 * MIB
    put(tmp_path, "proc/self/cgroup", "0::/board.slice/edge.service")
    put(tmp_path, "sys/fs/cgroup/board.slice/edge.service/memory.max", str(256 * MIB))
    put(tmp_path, "sys/fs/cgroup/board.slice/edge.service/memory.current", str(56 * MIB))
    assert available_bytes(tmp_path) == 200 * MIB


@given(st.integers(0, 1 << 40))
def test_callers_get_half_of_what_the_settings_leave_free_and_at_most_two_gib(free):
    rest = sum(needed_bytes(Settings(), VISION).values()) - needed_bytes(Settings(), VISION)["memory_bytes"]
    budget = budget_bytes(Settings(), VISION, free)
    assert budget == min(max(32 * MIB, (free - rest) // 2), 2048 * MIB)
    assert budget_bytes(Settings(memory_bytes=7 * MIB), VISION, free) == 7 * MIB


def test_settings_that_leave_callers_nothing_stop_the_start():
    with pytest.raises(ConfigError, match=r"^memory_bytes: 8589934592 needs 8192 MiB at least"):
        check_fits(Settings(memory_bytes=8192 * MIB), VISION, 4096 * MIB)
