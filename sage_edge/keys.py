"""API keys: who may call. The file holds their digests; a key itself is shown once, when it is made.

A key is 256 random bits, so that a plain SHA-256 keeps it as well as a slow hash would keep a password.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from sage_edge.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(rf"({_NAME.pattern}) sha256:([0-9a-f]{{64}})")


class Keyring:
    """The keys that a service accepts.

    Threads: any; nothing changes after the construction.
    """

    def __init__(self, digests: Mapping[str, str]) -> None:
        """Accept the keys with these digests, by name."""
        self._digests = dict(digests)

    def name_of(self, key: str) -> str | None:
        """Whose key this is; None for one that is not known. Takes the same time for every known name."""
        presented = _digest(key)
        found = None
        for name, digest in self._digests.items():
            if hmac.compare_digest(presented, digest):
                found = name
        return found


def load_keys(path: Path) -> Keyring:
    """Read a file of keys.

    Raises:
        ConfigError: It cannot be read, holds a line that is no key, or none at all.
    """
    digests = _read(path)
    if not digests:
        raise ConfigError(f"api_keys_file: {path} holds no key: add one with `sage-edge keys add NAME`")
    return Keyring(digests)


def add_key(path: Path, name: str) -> str:
    """Make a key, note its digest at the end of the file (made for its owner alone), and return it.

    Raises:
        ConfigError: The name is taken or no name, or the file cannot be read or written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"key name: expected up to 64 letters, digits and ._-, got {name!r}")
    if path.exists() and name in _read(path):
        raise ConfigError(f"{path}: has a key named {name} already: remove its line to revoke it")
    key = f"sage_{secrets.token_urlsafe(32)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8") as file:
            file.write(f"{name} sha256:{_digest(key)}\n")
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written: {exc.strerror}") from exc
    return key


def _read(path: Path) -> dict[str, str]:
    """Digests by name. Empty lines and those that start with ``#`` are nobody's."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"api_keys_file: {path} cannot be read: {exc}") from exc
    digests: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or match[1] in digests:
            raise ConfigError(f"{path}:{number}: expected `NAME sha256:…` with a name of its own")
        digests[match[1]] = match[2]
    return digests


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
