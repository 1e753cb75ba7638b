from __future__ import annotations

import contextlib
import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sage_edge.errors import ConfigError
from sage_edge.native import HALT_REASONS, protocol_reason
from sage_edge.telemetry import Event, TelemetryValidator, load_schema, schema
from sage_edge.telemetry.quick_check import compile_check
from sage_edge.telemetry.records import KINDS, tell
from tests.oracles.protocol_schema import PROTOCOL_SCHEMA
from tests.oracles.step_record import RawRecord, complete
from tests.sage_edge.telemetry.samples import EVENTS, ORIN, raw_run, run_info, written

SCHEMA = load_schema()
VALIDATOR = TelemetryValidator(SCHEMA)
PROTOCOL = Draft202012Validator(PROTOCOL_SCHEMA)
RECORD = complete(
    RawRecord(*raw_run([2.0, 1.5])[-1].tolist()),
    run_info(),
    seq=7,
    unix_offset_ns=10**18,
    n_dE=1,
    board=ORIN,
)
PLAIN = {
    "plugin": "vision",
    "step_idx": 4,
    "E": 0.25,
    "halt_reason": "max_steps",
    "budget": {"ATP_spent": 3.5, "time_ms": 12},
    "trust": {"monotonicity_ratio": 1, "dE_variance": 0.01},
}

EVERY_KIND = {
    kind: tell(Event(kind, fields, 5), entity_id="robot-7", seq=7, unix_offset_ns=10**18)
    for kind, fields in EVENTS.items()
} | {"step": RECORD}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
PATHS = [(key,) for key in RECORD] + [
    (group, key) for group in ("trust", "budget", "board") for key in RECORD[group]
]


def paths(value):
    """The way to every field of a record, down to the leaves."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (key,)
        if isinstance(inner, dict | list):
            yield from ((key, *rest) for rest in paths(inner))


def changed(record, path, value):
    record = copy.deepcopy(record)
    holder = record
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return record


def without(record, path):
    record = copy.deepcopy(record)
    holder = record
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    return record


def described_fields(node):
    for name, field in node.get("properties", {}).items():
        whole = resolve(field) | field
        yield name, whole
        yield from described_fields(whole)


def resolve(field):
    """What a field refers to, if it does."""
    if "$ref" not in field:
        return {}
    target = SCHEMA
    for name in field["$ref"].removeprefix("#/").split("/"):
        target = target[name]
    return resolve(target) | target


#: What has no fields of names that are known.
FREE = {"record", "hash", "halt_reason", "plain_halt_reason", "extra", "extra_value"}


@pytest.mark.parametrize("kind", sorted(set(SCHEMA["$defs"]) - FREE))
def test_every_field_of_the_schema_is_described(kind):
    fields = list(described_fields(SCHEMA["$defs"][kind]))
    assert fields
    assert [name for name, field in fields if not field.get("description")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_of_every_kind_is_valid_and_passes_the_quick_check(kind):
    assert Draft202012Validator(SCHEMA).is_valid(EVERY_KIND[kind])
    assert compile_check(SCHEMA["$defs"][kind], SCHEMA)(EVERY_KIND[kind])


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_a_record_of_ours_needs_every_field(path):
    if path == ("schema_version",):
        assert VALIDATOR.errors(without(RECORD, path)) == [], "without its version it is a plain record"
    else:
        assert VALIDATOR.errors(without(RECORD, path)) != []


@pytest.mark.parametrize("path", [("ΔE",), ("trust", "t3"), ("budget", "fee")], ids=".".join)
def test_a_record_of_ours_has_no_other_fields_and_the_error_names_the_stranger(path):
    (error,) = VALIDATOR.errors(changed(RECORD, path, 1.0))
    assert path[-1] in error


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema_version",), "2.0"),
        (("role",), "X"),
        (("step_idx",), -1),
        (("E_scale",), 0),
        (("feasible",), 1),
        (("halt_reason",), "unknown"),
        (("trust", "monotonicity_ratio"), 1.5),
        (("trust", "dE_variance"), None),
        (("trust", "expected_quality"), -0.1),
        (("budget", "ATP_unit"), "J"),
        (("budget", "ATP_spent"), -1),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_path(path, value):
    (error,) = VALIDATOR.errors(changed(RECORD, path, value))
    assert error.startswith("$." + ".".join(path) + ": ")


@given(st.dictionaries(st.text().filter(lambda key: key not in {*PLAIN, "schema_version"}), JSON, max_size=4))
def test_a_plain_irp_record_is_valid_whatever_else_it_carries(extra):
    assert VALIDATOR.errors(extra | PLAIN) == []


@pytest.mark.parametrize(
    "path",
    [*((key,) for key in PLAIN if key != "halt_reason"), ("budget", "time_ms"), ("trust", "dE_variance")],
)
def test_a_plain_irp_record_needs_its_fields(path):
    assert VALIDATOR.errors(without(PLAIN, path)) != []


@pytest.mark.parametrize("reason", HALT_REASONS)
def test_every_halt_reason_of_the_core_is_a_cause_and_the_protocols_word_for_it_a_reason(reason):
    word = protocol_reason(reason)
    assert VALIDATOR.errors(RECORD | {"halt_cause": reason, "halt_reason": word}) == []
    assert VALIDATOR.errors(PLAIN | {"halt_reason": word}) == []
    is_known = reason == word
    assert (VALIDATOR.errors(PLAIN | {"halt_reason": reason}) == []) == is_known
    assert (VALIDATOR.errors(RECORD | {"halt_reason": reason}) == []) == is_known


#: Values near what the protocol allows for each of its fields, and away from it.
NEAR = st.sampled_from(
    [
        None,
        True,
        "vision",
        "",
        0,
        -0.0,
        1,
        1.0,
        1.5,
        -1,
        -1e-9,
        2**70,
        "slope<eps",
        "timeout",
        "diverged",
        {},
        [],
    ]
)
FIELDS = [(name,) for name in PROTOCOL_SCHEMA["properties"]] + [
    (group, name)
    for group in ("trust", "budget")
    for name in PROTOCOL_SCHEMA["properties"][group]["properties"]
]
EDITS = st.lists(st.tuples(st.sampled_from(FIELDS), st.booleans(), NEAR | JSON), max_size=3)


def edited(record, edits):
    """A record with some fields set or left out."""
    for path, is_set, value in edits:
        if len(path) == 1 or isinstance(record.get(path[0]), dict):
            with contextlib.suppress(KeyError):
                record = changed(record, path, value) if is_set else without(record, path)
    return record


@given(EDITS, st.dictionaries(st.text().filter(lambda name: name != "schema_version"), JSON, max_size=2))
def test_a_record_without_a_version_is_valid_exactly_where_the_protocol_says_so(edits, more):
    record = edited({**PLAIN, "entity_id": None, "dE": None, "steps": 4, "LRC_context": None} | more, edits)
    assert (VALIDATOR.errors(record) == []) == PROTOCOL.is_valid(record)


@given(EDITS)
def test_a_step_of_ours_is_valid_only_where_the_protocol_says_so_too(edits):
    record = edited(RECORD, edits)
    assert PROTOCOL.is_valid(record) or VALIDATOR.errors(record) != []


@given(
    st.tuples(*[st.floats(width=32)] * 5),
    st.sampled_from(range(len(HALT_REASONS))),
    st.integers(-(2**40), 2**40),
)
def test_whatever_the_loop_writes_is_a_record_of_the_protocol(values, code, time_ns):
    raws = raw_run([2.0])
    for name, value in zip(("E", "dE", "E0", "best_E", "residual"), values, strict=True):
        raws[name] = value
    raws["halt_reason"], raws["time_ns"] = code, time_ns
    (record,) = written(raws)
    assert PROTOCOL.is_valid(record)
    assert VALIDATOR.errors(record) == []


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_step_has_a_plugin_so_that_a_reader_of_the_protocol_can_skip_the_rest(kind):
    assert ("plugin" in EVERY_KIND[kind]) == (kind == "step")


@pytest.mark.parametrize("record", [PLAIN, RECORD], ids=["plain", "ours"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(record, value):
    assert len(VALIDATOR.errors(record | {"E": value})) == 1


@pytest.mark.parametrize("value", [None, [], "record", 3])
def test_what_is_no_object_is_refused(value):
    assert VALIDATOR.errors(value) != []


@given(st.data(), st.sampled_from(KINDS), JSON, st.booleans())
def test_the_quick_way_and_the_standard_way_agree(data, kind, value, is_plain):
    path = data.draw(st.sampled_from(list(paths(EVERY_KIND[kind]))))
    record = changed(EVERY_KIND[kind], path, value)
    if is_plain:
        record = without(record, ("schema_version",))
    assert (VALIDATOR.errors(record) == []) == Draft202012Validator(SCHEMA).is_valid(record)


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_of_any_kind_needs_all_of_its_fields_and_has_no_others(kind):
    record = EVERY_KIND[kind]
    for path in paths(record):
        if isinstance(path[-1], str) and path != ("schema_version",):
            assert VALIDATOR.errors(without(record, path)) != [], path
    assert VALIDATOR.errors(record | {"ΔE": 1.0}) != []


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "format": "date"},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": []},
    ],
)
def test_what_the_quick_check_does_not_know_it_accepts_nothing_of(schema):
    assert not compile_check(schema, schema)("2026-01-01")
    assert not compile_check(schema, schema)({"a": "x"})


def test_a_very_long_value_does_not_make_a_very_long_message():
    (error,) = VALIDATOR.errors(changed(RECORD, ("role",), "x" * 10_000))
    assert len(error) <= 200


@pytest.mark.parametrize("content", [None, "{"])
def test_a_missing_or_broken_schema_file_stops_the_start(tmp_path, monkeypatch, content):
    file = tmp_path / "telemetry.schema.json"
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(schema, "shared_file", lambda _: file)
    with pytest.raises(ConfigError, match=r"telemetry\.schema\.json"):
        load_schema()
