from __future__ import annotations

import time

from sage_edge.clock import SystemClock


def test_the_monotonic_clock_is_the_one_that_deadlines_are_compared_with():
    before_ns, now_ns, after_ns = time.monotonic_ns(), SystemClock().monotonic_ns(), time.monotonic_ns()
    assert before_ns <= now_ns <= after_ns


def test_unix_time_counts_nanoseconds_since_1970():
    before_ns, now_ns, after_ns = time.time_ns(), SystemClock().unix_ns(), time.time_ns()
    assert before_ns <= now_ns <= after_ns


def test_sleeping_lets_at_least_that_time_pass():
    clock = SystemClock()
    start_ns = clock.monotonic_ns()
    clock.sleep(0.001)
    assert clock.monotonic_ns() - start_ns >= 1_000_000
