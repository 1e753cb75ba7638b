"""API keys at rest: digests only, and a file that says what is wrong with it."""

from __future__ import annotations

import hashlib
import stat

import pytest

from sage_edge.errors import ConfigError
from sage_edge.keys import add_key, load_keys


def test_a_key_is_known_by_its_name_and_no_other_is(tmp_path):
    file = tmp_path / "keys" / "api.keys"
    first, second = add_key(file, "camera-1"), add_key(file, "camera-2")
    keyring = load_keys(file)
    assert (keyring.name_of(first), keyring.name_of(second)) == ("camera-1", "camera-2")
    for wrong in ("", first[:-1], first + "x", first.upper(), "é" * 40, "\udcff"[:0]):
        assert keyring.name_of(wrong) is None


def test_the_file_holds_digests_for_its_owners_eyes(tmp_path):
    file = tmp_path / "api.keys"
    key = add_key(file, "robot")
    text = file.read_text()
    assert key not in text
    assert text == f"robot sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_keys_are_never_the_same(tmp_path):
    keys = {add_key(tmp_path / "api.keys", f"camera-{number}") for number in range(50)}
    assert len(keys) == 50
    assert all(len(key) >= 48 for key in keys)


def test_a_name_that_is_taken_or_none_is_refused(tmp_path):
    file = tmp_path / "api.keys"
    add_key(file, "camera")
    before = file.read_text()
    for name in ("camera", "", "two words", "a\nb", "x" * 65):
        with pytest.raises(ConfigError):
            add_key(file, name)
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key"),
        ("# nobody\n\n", "holds no key"),
        ("camera\n", "api.keys:1"),
        ("# mine\ncamera sha256:12\n", "api.keys:2"),
        (f"camera sha256:{'0' * 64}\ncamera sha256:{'1' * 64}\n", "api.keys:2"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line(tmp_path, text, words):
    (tmp_path / "api.keys").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_keys(tmp_path / "api.keys")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.keys"):
        load_keys(tmp_path / "missing.keys")
