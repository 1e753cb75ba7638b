"""Visiting power modes, over a command that does with nvpmodel's files what nvpmodel does."""

from __future__ import annotations

import os

import pytest

from sage_edge.commands.power_modes import PowerModes, visit
from sage_edge.errors import DeviceError
from tests.fixtures.sysfs_tree import lay_out, put

#: Refuses mode 3 as nvpmodel refuses one that needs a reboot: it asks, and takes no answer for a no.
NVPMODEL = """#!/bin/sh
[ "$1" = -m ] || exit 2
if [ "$2" = 3 ] && ! read answer; then
  echo "NVPM WARN: Reboot required for changing to this power mode: 3"
  exit 1
fi
printf 'pmode:%04d\\n' "$2" > {status}
"""


@pytest.fixture
def board(tmp_path):
    """An Orin Nano in mode 0 (15W), and its nvpmodel."""
    root = lay_out("orin_nano", tmp_path / "root")
    command = tmp_path / "nvpmodel"
    command.write_text(NVPMODEL.format(status=root / "var/lib/nvpmodel/status"))
    command.chmod(0o755)
    return root, str(command)


@pytest.fixture
def as_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def visited(modes, done):
    """Visits the modes, and notes in ``done`` what happens in which mode."""
    return visit(
        modes,
        measure=lambda: {"mode": done.append(("measure", modes.in_force)) or modes.in_force},
        settle=lambda: done.append(("settle", modes.in_force)),
    )


def test_each_mode_settles_is_measured_and_the_first_one_is_in_force_again(board, as_root):
    modes, done = PowerModes(*board), []
    found = visited(modes, done)
    assert modes.names == {0: "15W", 1: "25W", 2: "MAXN_SUPER", 3: "7W"}
    assert {name: found[name] for name in ("15W", "25W", "MAXN_SUPER")} == {
        "15W": {"mode": 0},
        "25W": {"mode": 1},
        "MAXN_SUPER": {"mode": 2},
    }
    assert done == [(what, number) for number in (0, 1, 2) for what in ("settle", "measure")]
    assert modes.in_force == 0


def test_a_mode_that_asks_for_a_reboot_is_not_allowed_and_says_why(board, as_root):
    found = visited(PowerModes(*board), [])
    assert list(found["7W"]) == ["not_allowed"]
    assert "expected that mode, got 2: NVPM WARN: Reboot required" in found["7W"]["not_allowed"]


def test_without_root_only_the_mode_in_force_is_measured(board, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = visited(PowerModes(*board), [])
    assert found.pop("15W") == {"mode": 0}
    refused = {"not_allowed": "expected root, who alone may switch power modes"}
    assert found == {"25W": refused, "MAXN_SUPER": refused, "7W": refused}


def test_a_failed_measurement_leaves_the_board_in_its_mode(board, as_root):
    modes = PowerModes(*board)

    def fail():
        if modes.in_force == 1:
            raise RuntimeError("hot")
        return {}

    with pytest.raises(RuntimeError, match="hot"):
        visit(modes, measure=fail, settle=lambda: None)
    assert modes.in_force == 0


def test_a_way_back_that_fails_is_an_error(board, as_root):
    root, command = board
    put(root, "var/lib/nvpmodel/status", "pmode:0003")
    with pytest.raises(DeviceError, match="nvpmodel -m 3: expected that mode, got 2"):
        visited(PowerModes(root, command), [])


def test_a_mode_in_force_that_nobody_knows_is_not_left(tmp_path, as_root):
    with pytest.raises(DeviceError, match="expected to know the one in force"):
        visited(PowerModes(tmp_path), [])


def test_a_command_that_is_missing_is_named(board, as_root):
    modes = PowerModes(board[0], "/nowhere/nvpmodel")
    with pytest.raises(DeviceError, match=r"/nowhere/nvpmodel -m 2: .*No such file"):
        modes.switch(2)
