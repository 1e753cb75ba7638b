from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sage_edge.errors import ConfigError
from sage_edge.telemetry.signing import SigningKey, is_signed, public_key_path, read_public_key

FIELDS = {"signed_seq": 7, "signed_hash": "ab" * 32}


def test_a_key_is_made_once_readable_by_its_owner_alone(tmp_path):
    path = tmp_path / "audit_key.pem"
    first, again = SigningKey(path), SigningKey(path)
    assert first.public_key == again.public_key == read_public_key(tmp_path / "audit_key.pub.pem")
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["audit_key.pem", "audit_key.pub.pem"]


def test_a_lost_public_key_is_written_again(tmp_path):
    path = tmp_path / "audit_key.pem"
    key = SigningKey(path)
    public_key_path(path).unlink()
    SigningKey(path)
    assert read_public_key(public_key_path(path)) == key.public_key


def test_a_signature_is_one_that_another_program_accepts(tmp_path):
    signed = SigningKey(tmp_path / "key.pem").sign(FIELDS)
    message = json.dumps(FIELDS, sort_keys=True, separators=(",", ":")).encode()
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signed["public_key"]))
    public.verify(bytes.fromhex(signed["signature"]), message)  # raises if it is not


@pytest.mark.parametrize(
    "change",
    [
        {"signed_seq": 8},
        {"signed_hash": "ac" * 32},
        {"public_key": "00" * 32},
        {"signature": "00" * 64},
        {"signature": "zz"},
        {"signature": None},
        {"more": 1},
    ],
    ids=str,
)
def test_a_changed_field_breaks_the_signature(tmp_path, change):
    signed = SigningKey(tmp_path / "key.pem").sign(FIELDS)
    assert is_signed(signed)
    assert not is_signed(signed | change)


def test_a_file_that_is_no_key_stops_the_start(tmp_path):
    path = tmp_path / "key.pem"
    path.write_text("secret")
    with pytest.raises(ConfigError, match=r"audit_key: .*key\.pem: expected an Ed25519 private key"):
        SigningKey(path)
    with pytest.raises(ConfigError, match=r"key\.pem: expected an Ed25519 public key"):
        read_public_key(path)


def test_a_key_of_another_kind_stops_the_start(tmp_path):
    path = tmp_path / "key.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    encoding = serialization.Encoding.PEM
    none = serialization.NoEncryption()
    path.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, none))
    with pytest.raises(ConfigError, match="expected an Ed25519 private key, got"):
        SigningKey(path)
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.write_bytes(public)
    with pytest.raises(ConfigError, match="expected an Ed25519 public key, got"):
        read_public_key(path)
