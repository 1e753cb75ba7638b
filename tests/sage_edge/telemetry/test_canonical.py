from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.telemetry import ZERO_HASH, draft, seal, to_line
from sage_edge.telemetry.canonical import Link, link_before, link_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
RECORDS = st.dictionaries(st.text(), VALUES, max_size=6).map(
    lambda extra: {"entity_id": "a", "seq": 1} | extra
)


def canonical(record):
    """The definition, as another program would write it."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@given(RECORDS)
def test_a_sealed_line_is_canonical_and_its_hash_covers_all_the_rest(record):
    sealed = seal(draft(record), "ab" * 32)
    assert sealed.line == canonical(json.loads(sealed.line)) == to_line(dict(sealed)).encode()
    rest = {key: value for key, value in json.loads(sealed.line).items() if key != "record_hash"}
    assert sealed.record_hash == sealed["record_hash"] == hashlib.sha256(canonical(rest)).hexdigest()
    assert rest == {**record, "prev_hash": "ab" * 32}


def test_a_hash_computed_by_hand():
    record = seal(draft({"entity_id": "a", "seq": 0}), ZERO_HASH)
    by_hand = f'{{"entity_id":"a","prev_hash":"{"0" * 64}","seq":0}}'
    assert record["record_hash"] == hashlib.sha256(by_hand.encode()).hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(ValueError, match=r"not JSON compliant|surrogates"):
        draft({"entity_id": value, "seq": 0})


def test_links_of_a_line():
    sealed = seal(draft({"entity_id": "a", "seq": 7}), "ab" * 32)
    line = sealed.line
    assert link_of(line) == Link(7, sealed.record_hash)
    assert link_before(line) == Link(6, "ab" * 32)
    assert link_of(b'{"seq": 3}') == Link(3, ZERO_HASH), "schema version 1.0"
    assert link_before(b'{"seq": 3}') is link_before(b"{") is link_before(b"[]") is None


@given(RECORDS)
def test_a_sealed_record_is_the_mapping_that_its_line_holds(record):
    sealed = seal(draft(record), ZERO_HASH)
    assert sealed["seq"] == record["seq"]
    assert sealed == json.loads(sealed.line)
    assert (len(sealed), set(sealed)) == (len(json.loads(sealed.line)), set(json.loads(sealed.line)))
    with pytest.raises(KeyError):
        sealed["no such field, and no text of six characters"]
