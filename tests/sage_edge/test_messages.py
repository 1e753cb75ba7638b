"""What a message quotes of a caller's value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.messages import named, shown


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        "a" * 10_000_000,
        [1.5] * 1_000_000,
        {f"name {number}": [number] * 100 for number in range(50_000)},
        nested(100_000),
        [["a" * 1000] * 1000] * 1000,
        10**4000,
    ],
    ids=["text", "list", "object", "depth", "lists", "number"],
)
def test_a_message_is_short_whatever_the_value(value):
    assert len(shown(value)) < 10_000


@pytest.mark.parametrize("value", [0, 1.5, None, True, "text", [], {}, [1, "a"], {"a": [1]}])
def test_a_small_value_is_shown_whole(value):
    assert shown(value) == repr(value)


@given(st.sets(st.text(max_size=9), max_size=16))
def test_few_names_are_shown_in_order(names):
    assert named(names) == repr(sorted(names))


def test_of_many_names_some_are_shown():
    assert named(f"{number:05}" for number in range(50_000)).endswith(", '00015', ...]")
