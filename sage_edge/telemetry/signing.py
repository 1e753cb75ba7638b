"""Ed25519 signatures over a few fields, and the key that they are made with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sage_edge.errors import ConfigError
from sage_edge.telemetry.canonical import to_line

_NOT_SIGNED = ("public_key", "signature")


class SigningKey:
    """A private key, kept in a PEM file that only its owner can read; the public one stands beside it.

    Threads: immutable.
    """

    def __init__(self, path: Path) -> None:
        """Read the key; make one when there is none.

        Raises:
            ConfigError: The file holds something else.
            OSError: It cannot be read, or not be made.
        """
        if not path.exists():
            _make_key(path)
        self._key = _read_private(path)
        public = public_key_path(path)
        if not public.exists():
            _write_new(public, _public_pem(self._key.public_key()), 0o644)
        self.public_key = self._key.public_key().public_bytes_raw().hex()

    def sign(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields with ``public_key`` and a ``signature`` over their canonical JSON, both in hex."""
        signature = self._key.sign(_message(fields))
        return dict(fields) | {"public_key": self.public_key, "signature": signature.hex()}


def is_signed(fields: Mapping[str, Any]) -> bool:
    """Whether the ``signature`` is that of the other fields by ``public_key``; False when it is nonsense."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(fields["public_key"]))
        key.verify(bytes.fromhex(fields["signature"]), _message(fields))
    except (InvalidSignature, ValueError, TypeError, KeyError):
        return False
    return True


def public_key_path(private: Path) -> Path:
    """Where the public key stands: ``audit_key.pub.pem`` beside ``audit_key.pem``."""
    return private.with_suffix(".pub.pem")


def read_public_key(path: Path) -> str:
    """The public key of a PEM file, in hex.

    Raises:
        ConfigError: The file holds something else.
        OSError: It cannot be read.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ConfigError(f"{path}: expected an Ed25519 public key in PEM: {exc}") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: expected an Ed25519 public key, got {type(key).__name__}")
    return key.public_bytes_raw().hex()


def _message(fields: Mapping[str, Any]) -> bytes:
    return to_line({name: value for name, value in fields.items() if name not in _NOT_SIGNED}).encode()


def _read_private(path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ConfigError(f"audit_key: {path}: expected an Ed25519 private key in PEM: {exc}") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"audit_key: {path}: expected an Ed25519 private key, got {type(key).__name__}")
    return key


def _make_key(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write_new(path, pem, 0o600)


def _public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Make a file whole or not at all; the first of two processes wins."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
