"""Settings: precedence, types, and a clear stop for what is wrong."""

from __future__ import annotations

import re
import tempfile
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.config import Settings, describe_settings, load_settings, shared_file
from sage_edge.errors import ConfigError


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path):
    file = tmp_path / "sage.toml"
    file.write_text('port = 1\nslots = 2\nqueue_size = 3\nplugins = ["vision"]\n')
    settings = load_settings({"port": "7", "slots": None}, {"SAGE_PORT": "5", "SAGE_SLOTS": "6"}, file)
    assert (settings.port, settings.slots, settings.queue_size) == (7, 6, 3)
    assert settings.plugins == ("vision",)
    assert settings.threads == Settings().threads


def test_the_settings_in_effect_are_printed_with_their_origins(tmp_path):
    file = tmp_path / "sage.toml"
    file.write_text("port = 1\nslots = 2\nqueue_size = 3\n")
    printed = describe_settings({"port": "7"}, {"SAGE_SLOTS": "6"}, file)
    rows = dict(line.split(" = ", 1) for line in printed.splitlines())
    assert list(rows) == [entry.name for entry in fields(Settings)]
    shown = {name: re.split(r"  +# ", row) for name, row in rows.items()}
    assert shown["port"] == ["7", "--port"]
    assert shown["slots"] == ["6", "environment SAGE_SLOTS"]
    assert shown["queue_size"] == ["3", str(file)]
    assert shown["plugins"] == ['["vision"]', "default"]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "entity_id": st.text(st.characters(exclude_categories=("Cs", "Cc"))),
            "slots": st.integers(1, 99),
            "power_w": st.floats(0.001, 1e6),
            "open_metrics": st.booleans(),
            "cors_origins": st.lists(st.from_regex(r"[a-z:/.]+", fullmatch=True)),
        },
    )
)
def test_what_is_printed_is_a_file_of_the_same_settings(values):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sage.toml"
        file.write_text(describe_settings(values, {}), encoding="utf-8")
        assert load_settings({}, {}, file) == load_settings(values, {})


def test_the_environment_names_the_file(tmp_path):
    file = tmp_path / "sage.toml"
    file.write_text("power_w = 7\n")
    assert load_settings(environment={"SAGE_CONFIG": str(file)}).power_w == 7.0


def test_what_the_build_was_told_is_no_setting():
    assert load_settings({}, {"SAGE_CUDA": "ON"}) == load_settings({}, {})


@pytest.mark.parametrize(
    ("flags", "environment", "text", "words"),
    [
        ({}, {"SAGE_PROT": "1"}, "", ["SAGE_PROT", "unknown setting", "port"]),
        ({}, {}, "prot = 1\n", ["sage.toml", "prot", "unknown setting"]),
        ({"port": "http"}, {}, "", ["--port", "int", "http"]),
        ({"slots": "0"}, {}, "", ["slots", "at least 1", "got 0"]),
        ({}, {"SAGE_PROFILE": "cloud"}, "", ["profile", "edge, workstation", "cloud"]),
        ({}, {}, "mailbox_records = 1000\n", ["mailbox_records", "power of two", "1000"]),
        ({}, {}, "slots = true\n", ["slots", "int", "True"]),
        ({}, {}, "slots = 1.5\n", ["slots", "int", "1.5"]),
        ({"power_w": "nan"}, {}, "", ["power_w", "nan"]),
        ({"port": "70000"}, {}, "", ["port", "65535"]),
        ({}, {}, "port = \n", ["sage.toml", "TOML"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path, flags, environment, text, words):
    file = tmp_path / "sage.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(flags, environment, file)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        load_settings({}, {}, tmp_path / "none.toml")


def test_shared_files_are_found():
    assert shared_file("schemas/telemetry.schema.json").is_file()
