"""`sage-edge audit verify`: what it prints, and how it ends."""

from __future__ import annotations

import json
import re

import pytest

from tests.command_line import assert_said, run
from tests.sage_edge.telemetry.logs import write_log


def test_audit_verify_prints_a_table_and_ends_with_0_when_all_is_sound(tmp_path, capsys):
    write_log(tmp_path)
    code, out, errors = run(capsys, "audit", "verify", tmp_path)
    assert (code, errors) == (0, "")
    for row in (
        "gaps         0",
        "runs         4 ended, 0 without",
        "ATP spent    60.120000",
        "verdict      sound",
    ):
        assert row in out


def test_audit_verify_names_each_finding_and_ends_with_1(tmp_path, capsys):
    write_log(tmp_path)
    file = tmp_path / "telemetry.jsonl"
    file.write_text(file.read_text().replace('"cause":"admit"', '"cause":"join"', 1))
    code, out, errors = run(capsys, "audit", "verify", file, "--public-key", tmp_path / "audit_key.pub.pem")
    assert (code, errors) == (1, "")
    assert re.match(re.escape(str(file)) + r":4: seq \d+: record_hash \(changed\): expected ", out)
    assert out.endswith("verdict      1 findings\n")


def test_audit_verify_reports_every_journal_as_json(tmp_path, capsys):
    for name in "ab":
        write_log(tmp_path / name)
    (tmp_path / "b" / "audit_head.json").unlink()
    code, out, errors = run(capsys, "audit", "verify", "--json", tmp_path / "a", tmp_path / "b")
    assert (code, errors) == (1, "")
    sound, unsound = json.loads(out)
    assert (sound["is_sound"], sound["runs"], sound["findings"]) == (True, 4, [])
    assert unsound["findings"][0]["problem"].startswith("expected a signed head")


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_journal_that_is_not_there_is_named(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    code, out, errors = run(capsys, "audit", "verify", name)
    assert (code, out) == (1, "")
    assert_said(errors, name if name != "." else "telemetry.jsonl", "no telemetry journal")


def test_a_public_key_that_is_none_is_named(tmp_path, capsys):
    write_log(tmp_path)
    (tmp_path / "key").write_text("secret")
    code, out, errors = run(capsys, "audit", "verify", tmp_path, "--public-key", tmp_path / "key")
    assert (code, out) == (2, "")
    assert_said(errors, "key", "expected an Ed25519 public key")
