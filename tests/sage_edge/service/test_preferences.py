"""The Prefer header, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.service.preferences import Preferences, preferences_of


@pytest.mark.parametrize(
    ("headers", "is_async", "wait_s"),
    [
        ([], False, None),
        (["respond-async"], True, None),
        (["Respond-Async"], True, None),
        (["respond-async, wait=10"], True, 10),
        (["respond-async", "wait=10"], True, 10),
        (["wait = 10 , respond-async;foo=1"], True, 10),
        (['wait="10"'], False, 10),
        (["wait=0"], False, 0),
        (["wait=5, wait=7"], False, 5),
        (['foo="bar, respond-async", wait=3'], False, 3),
        (['respond-async=""'], True, None),
        (["return=minimal; respond-async"], False, None),
    ],
)
def test_a_preference_is_read_as_the_rfc_has_it(headers, is_async, wait_s):
    assert preferences_of(headers) == Preferences(is_async, wait_s)


@pytest.mark.parametrize(
    "header",
    ["wait", "wait=", "wait=-1", "wait=1.5", "wait=soon", "wait=²", "wait=" + "9" * 5000, "wait=1 0"],
)
def test_a_wait_that_is_no_number_of_seconds_is_ignored(header):
    assert preferences_of([header]).wait_s is None


@pytest.mark.parametrize("header", ["respond-async=1", "respond", "async", "", ",", '"', "=", ";"])
def test_what_is_not_respond_async_is_ignored(header):
    assert preferences_of([header]) == Preferences(False, None)


@given(st.lists(st.text(max_size=40), max_size=4))
def test_no_header_stops_the_request(headers):
    preferences = preferences_of(headers)
    assert preferences.wait_s is None or preferences.wait_s >= 0


@given(st.integers(0, 10**12 - 1), st.booleans())
def test_what_was_meant_is_read_back(wait_s, is_async):
    header = f"wait={wait_s}" + (", respond-async" if is_async else "")
    assert preferences_of([header]) == Preferences(is_async, wait_s)
