"""Settings: precedence, types, and a clear stop for what is wrong."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.config import Settings, describe_settings, load_settings, setting_fields, shared_file
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
    assert list(rows) == [entry.name for entry in setting_fields()]
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


TABLES = """
[plugins.vision]
model = "nuclei"
halt_eps = 0.01

[plugins.roads]
class = "vision"
model = "camvid"
"""


def test_tables_of_a_file_name_the_plugins_and_have_their_keys(tmp_path):
    file = tmp_path / "sage.toml"
    file.write_text(TABLES)
    settings = load_settings({}, {}, file)
    assert settings.plugins == ("vision", "roads")
    assert settings.plugin_config["roads"] == {"class": "vision", "model": "camvid"}
    # The environment is stronger than the file, and the command line than both.
    environment = {"SAGE_PLUGINS__VISION__MODEL": "a", "SAGE_PLUGINS__VISION__HALT_K": "2"}
    stronger = load_settings({"set": ["vision.model=b"]}, environment, file).plugin_config["vision"]
    assert stronger == {"model": "b", "halt_eps": 0.01, "halt_K": 2}
    # A list elsewhere chooses among the tables.
    assert load_settings({"plugins": "roads"}, {}, file).plugins == ("roads",)
    assert load_settings({}, {"SAGE_PLUGINS": "vision"}, file).plugins == ("vision",)


def test_tables_that_are_printed_are_a_file_of_the_same_settings(tmp_path):
    file, again = tmp_path / "sage.toml", tmp_path / "again.toml"
    file.write_text(TABLES + 'levels = [1, 2.5, true, "x", {depth = 3}]\n')
    again.write_text(describe_settings({"set": ["vision.text=a b"]}, {}, file))
    assert load_settings({}, {}, again) == load_settings({"set": ["vision.text=a b"]}, {}, file)
    assert f'model = "camvid"{" " * 10}' in again.read_text()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('"7"', "7"),
        ("camvid", "camvid"),
        ("a = b", "a = b"),
    ],
)
def test_a_key_of_a_plugin_is_read_as_toml_where_it_is_some(text, value):
    assert load_settings({"set": [f"vision.key={text}"]}, {}).plugin_config == {"vision": {"key": value}}


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
        ({}, {"SAGE_PLUGINS__ROADS__MODEL": "x"}, "", ["SAGE_PLUGINS__ROADS__MODEL", "not served", "vision"]),
        ({}, {"SAGE_PLUGINS__ROADS": "x"}, "", ["SAGE_PLUGINS__ROADS", "SAGE_PLUGINS__NAME__KEY"]),
        ({"set": ["roads.model=x"]}, {}, "", ["--set roads.model", "not served", "vision"]),
        ({"set": ["model=x"]}, {}, "", ["--set", "NAME.KEY=VALUE", "model=x"]),
        ({}, {}, "[plugins]\nvision = 3\n", ["sage.toml", "[plugins.vision]", "3"]),
        ({"plugins": "vision,vision"}, {}, "", ["plugins", "once"]),
        ({"plugins": "../etc"}, {}, "", ["plugins", "letters", "../etc"]),
        ({}, {}, "[plugin_config.vision]\n", ["sage.toml", "unknown setting", "plugin_config"]),
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
