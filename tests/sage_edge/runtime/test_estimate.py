"""Estimates of durations, in time that passes only when told."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sage_edge.runtime import Estimate, SizedEstimate

MS = 1_000_000
SECOND = 1_000 * MS
#: How long something takes: what is usual, and what happens to it.
usual = st.integers(1 * MS, 40 * MS)
hiccups = st.integers(100 * MS, 10 * SECOND)


def taught(durations, now_ns=0, pause_ns=0, known=None):
    """An estimate that saw the durations one after the other, and the time then."""
    known = known or Estimate()
    for duration_ns in durations:
        now_ns += pause_ns + duration_ns
        known.add(duration_ns, now_ns)
    return known, now_ns


def first_accepted_ns(known, now_ns, *, takes_ns, deadline_ns, every_ns, within_ns):
    """When a request is first let through; until then each denies."""
    for asked_ns in range(now_ns, now_ns + within_ns + 1, every_ns):
        if known.bound_ns(asked_ns) <= deadline_ns:
            known.add(takes_ns, asked_ns + takes_ns)
            return asked_ns
        refuse(known, asked_ns, deadline_ns)
    return None


def refuse(known, now_ns, deadline_ns):
    """As whoever refuses does."""
    known.deny(now_ns, may_fit=deadline_ns >= known.least_ns)


@given(st.lists(usual, min_size=1, max_size=60))
def test_the_bound_is_not_below_the_mean_and_not_above_what_was_usual_by_far(durations):
    known, now_ns = taught(durations)
    assert min(durations) <= known.mean_ns <= max(durations)
    assert known.mean_ns - 1 <= known.bound_ns(now_ns) <= 6 * max(durations)


@settings(max_examples=300)
@given(
    st.lists(st.one_of(usual, hiccups), max_size=40),
    st.integers(1 * MS, 40 * MS),
    st.integers(1, 400),
    st.integers(10, 250),
)
@example([10 * SECOND, 10 * SECOND], 1 * MS, 400, 250)
def test_after_any_hiccups_what_fits_is_let_through_within_a_second(history, takes_ns, pause_ms, every_ms):
    known, now_ns = taught([takes_ns, *history], pause_ns=pause_ms * MS)
    deadline_ns = 2 * takes_ns + 60 * MS
    accepted_ns = first_accepted_ns(
        known,
        now_ns,
        takes_ns=takes_ns,
        deadline_ns=deadline_ns,
        every_ns=every_ms * MS,
        within_ns=SECOND,
    )
    assert accepted_ns is not None


@given(st.lists(hiccups, min_size=1, max_size=3), usual)
def test_hiccups_before_anything_else_was_seen_forbid_nothing_for_long(history, takes_ns):
    known, now_ns = taught(history)
    deadline_ns = takes_ns + 20 * MS
    found = first_accepted_ns(
        known, now_ns, takes_ns=takes_ns, deadline_ns=deadline_ns, every_ns=50 * MS, within_ns=SECOND
    )
    assert found is not None


@given(st.lists(st.integers(20 * MS, 24 * MS), min_size=10, max_size=40), hiccups)
def test_one_hiccup_moves_the_bound_by_less_than_its_width(durations, hiccup_ns):
    known, now_ns = taught(durations)
    before_ns = known.bound_ns(now_ns)
    width_ns = before_ns - known.mean_ns
    known.add(hiccup_ns, now_ns + hiccup_ns)
    assert known.bound_ns(now_ns + hiccup_ns) <= before_ns + width_ns


def test_one_hiccup_that_falls_into_many_durations_is_one_hiccup():
    known, now_ns = taught([20 * MS] * 20)
    before_ns = known.bound_ns(now_ns)
    for number in range(8):  # all under way when it came, done one after the other
        known.add(5 * SECOND + number * MS, now_ns + 5 * SECOND + number * MS)
    assert known.bound_ns(now_ns) < 2 * before_ns


@given(st.lists(usual, min_size=5, max_size=40), st.integers(2, 10))
def test_a_second_outlier_in_a_row_is_learned(durations, times):
    known, now_ns = taught(durations)
    slow_ns = times * 10 * max(durations)
    known, now_ns = taught([slow_ns] * 2, now_ns, known=known)
    assert known.bound_ns(now_ns) >= slow_ns


@given(st.lists(usual, min_size=5, max_size=40), st.integers(0, 3600 * SECOND), st.integers(0, 999))
def test_what_is_shorter_than_anything_seen_stays_refused(durations, denied_for_ns, doubted_for_ms):
    known, now_ns = taught(durations)
    known.deny(now_ns)
    asked_ns = now_ns + denied_for_ns
    known.deny(asked_ns, may_fit=False)
    assert known.bound_ns(asked_ns + doubted_for_ms * MS) >= min(durations)


def test_who_asks_for_the_impossible_does_not_make_others_late():
    known, now_ns = taught([40 * MS, 60 * MS] * 10)
    before_ns = known.bound_ns(now_ns)
    for _ in range(100):
        refuse(known, now_ns, 5 * MS)
        now_ns += 9 * MS
        assert known.bound_ns(now_ns) == before_ns


def test_a_machine_that_has_become_faster_is_found_out_and_one_that_has_not_is_tried_ever_less():
    known, now_ns = taught([200 * MS] * 100)
    deadline_ns = 100 * MS
    tried = []
    for _ in range(6):
        found = first_accepted_ns(
            known,
            now_ns,
            takes_ns=200 * MS,
            deadline_ns=deadline_ns,
            every_ns=100 * MS,
            within_ns=120 * SECOND,
        )
        tried.append((found - now_ns) / SECOND)
        now_ns = found + 200 * MS
    assert tried[0] < 2
    assert all(later > 1.5 * sooner for sooner, later in pairwise(tried))
    found = first_accepted_ns(
        known, now_ns, takes_ns=36 * MS, deadline_ns=deadline_ns, every_ns=100 * MS, within_ns=120 * SECOND
    )
    assert known.bound_ns(found + 36 * MS) <= deadline_ns


@given(st.lists(st.one_of(usual, hiccups), min_size=1, max_size=15))
def test_few_durations_refuse_nobody_who_has_as_much_time_as_the_least_of_them(durations):
    known, now_ns = taught(durations)
    assert known.firm_ns(now_ns) == min(durations) <= known.bound_ns(now_ns)
    known, now_ns = taught([20 * MS] * 16, now_ns)
    assert known.firm_ns(now_ns) == known.bound_ns(now_ns)


def test_where_nothing_is_denied_time_changes_nothing():
    known, now_ns = taught([20 * MS, 30 * MS, 25 * MS])
    assert known.bound_ns(now_ns) == known.bound_ns(now_ns + 3600 * SECOND)
    known.deny(now_ns)
    assert known.bound_ns(now_ns + 100 * MS) < known.bound_ns(now_ns)


def test_a_trial_that_fails_takes_the_relaxation_back():
    known, now_ns = taught([40 * MS, 60 * MS] * 10)
    before_ns = known.bound_ns(now_ns)
    known.deny(now_ns)
    assert known.bound_ns(now_ns + 300 * MS) < 50 * MS
    known.add(60 * MS, now_ns + 300 * MS)
    assert known.bound_ns(now_ns + 300 * MS) > before_ns * 0.8


@given(st.floats(allow_nan=True), st.integers(1, 16))
def test_any_size_is_one(size, rows):
    known = SizedEstimate()
    known.add(20 * MS, 20 * MS, rows=rows, size=size)
    assert known.bound_ns(20 * MS, rows=rows, size=size) == 60 * MS
    assert known.mean_ns(rows) == 20 * MS


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 8), st.integers(1, 8))
def test_an_unseen_batch_counts_as_the_nearest_smaller_one_that_was(seen, asked, seen_rows, asked_rows):
    known = SizedEstimate()
    known.add(20 * MS, 20 * MS, rows=seen_rows, size=2.0**seen)
    bound_ns = known.bound_ns(20 * MS, rows=asked_rows, size=2.0**asked)
    if asked < seen:
        assert bound_ns == 0
    else:
        assert math.isclose(bound_ns, 60 * MS * max(1.0, asked_rows / seen_rows), abs_tol=2)


def test_a_large_problem_teaches_nothing_about_small_ones():
    known = SizedEstimate()
    known.add(2 * MS, 2 * MS, size=10)
    before_ns = known.bound_ns(2 * MS, size=10)
    for second in range(1, 10):
        known.add(SECOND, second * SECOND, size=33e6)
    assert known.bound_ns(10 * SECOND, size=10) == before_ns
    assert known.bound_ns(10 * SECOND, size=33e6) >= SECOND
