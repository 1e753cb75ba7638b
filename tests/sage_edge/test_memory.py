"""Accounts of memory: nothing is granted beyond the limit, nothing is lost, and what does not fit is said."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.errors import FrameTooLargeError, MemoryFullError
from sage_edge.memory import SHARES, Account, Kept, MemoryBudget, bytes_of, parsed_bytes

LIMIT = 6400
SMALL = LIMIT // 64


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(-LIMIT, 2 * LIMIT)), max_size=60))
def test_what_is_held_is_what_the_holders_hold_and_never_more_than_there_is(moves):
    account = Account("bodies", LIMIT)
    holders = [account.reserve() for _ in range(8)]
    refused = 0
    for number, size in moves:
        holder = holders[number]
        before = holder.size
        if size < 0:
            holder.shrink_to(holder.size + size if holder.size > -size else 0)
            assert holder.size == max(0, before + size)
            continue
        try:
            holder.grow(size)
            assert holder.size == before + size
        except (FrameTooLargeError, MemoryFullError):
            refused += 1
            assert holder.size == before
        assert account.used == sum(holder.size for holder in holders) <= LIMIT
    assert account.refused == refused
    for holder in holders:
        holder.release()
        holder.release()
    assert account.used == 0


def test_what_can_never_fit_is_told_from_what_does_not_fit_now():
    account = Account("bodies", LIMIT)
    with pytest.raises(FrameTooLargeError, match=r"^memory for bodies: expected .* at most .*, got one"):
        account.reserve(account.largest + 1)
    with account.reserve(account.largest), pytest.raises(MemoryFullError, match=r"free; try again later$"):
        account.reserve(account.largest)
    assert account.reserve(account.largest).size == account.largest


def test_a_reservation_that_grows_bit_by_bit_is_refused_like_one_that_comes_at_once():
    account = Account("bodies", LIMIT)
    with account.reserve() as held, pytest.raises(FrameTooLargeError):
        for _ in range(LIMIT):
            held.grow(SMALL)
    assert account.used == 0


def test_the_large_leave_room_for_the_small():
    account = Account("bodies", LIMIT)
    hogs = [account.reserve(account.largest // 4) for _ in range(4)]
    with pytest.raises(MemoryFullError):
        account.reserve(SMALL + 1)
    small = [account.reserve(SMALL) for _ in range(8)]
    assert account.used == LIMIT
    for holder in (*hogs, *small):
        holder.release()
    assert account.used == 0


def test_what_is_moved_is_given_back_by_its_new_holder_alone():
    account = Account("requests", LIMIT)
    with account.reserve(10) as held:
        moved = held.move()
    assert (account.used, moved.size) == (10, 10)
    moved.release()
    assert account.used == 0


def test_parts_of_an_account_count_in_the_whole():
    whole = Account("streams", LIMIT)
    left, right = whole.part(2), whole.part(2)
    with left.reserve(left.largest), right.reserve(right.largest):
        assert whole.used == 2 * left.largest <= LIMIT
        with pytest.raises(MemoryFullError):
            left.reserve(SMALL)
    assert whole.used == left.used == right.used == 0


@given(st.integers(1 << 20, 1 << 40))
def test_the_accounts_together_are_no_more_than_the_budget(total):
    budget = MemoryBudget(total)
    assert set(budget.status()) == set(SHARES)
    assert total - len(SHARES) <= sum(account.limit for account in budget.accounts.values()) <= total


def test_what_is_kept_by_name_is_bounded_by_count():
    kept = Kept(3, Account("streams", LIMIT))
    for number in range(1000):
        kept.keep(f"s{number % 7}", number, 1)
    assert len(kept) == 3
    assert [kept.get(f"s{n}") for n in (998 % 7, 999 % 7)] == [998, 999]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, LIMIT)), max_size=40))
def test_what_is_kept_by_name_is_bounded_by_bytes_and_the_newest_is_there(values):
    account = Account("streams", LIMIT)
    kept = Kept(1000, account)
    for name, size in values:
        kept.keep(str(name), size, size)
        assert kept.get(str(name)) == (size if size <= account.largest else None)
        assert account.used <= LIMIT
    assert account.used == sum(kept.get(str(name)) or 0 for name in range(10))


PIECES = [
    "[]",
    "{}",
    "[[]]",
    '""',
    '"ab"',
    "1",
    "1.5",
    "123456789",
    "null",
    '{"":0}',
    '{"a":{"b":[]}}',
    "[1]",
]
PIECES += [json.dumps({str(n): n for n in range(k)}) for k in (1, 5, 6, 11, 40)]


@settings(max_examples=25)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=4))
def test_parsed_json_takes_no_more_than_was_counted_for_it(pieces):
    body = ("[" + ",".join(pieces * (5_000 // len(pieces))) + "]").encode()
    tracemalloc.start()
    parsed = json.loads(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(parsed) > 0
    assert peak <= parsed_bytes(body) + 3 * len(body) + 65536


def test_json_of_unlike_names_takes_no_more_than_was_counted_for_it():
    body = json.dumps({f"{number:x}": number + 1000 for number in range(20_000)}).encode()
    tracemalloc.start()
    json.loads(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= parsed_bytes(body) + 3 * len(body)


def test_the_memory_of_a_value_is_that_of_its_arrays_and_of_what_they_are_in():
    array = np.zeros((100, 100))
    assert bytes_of(array) == array.nbytes
    assert bytes_of({"a": [array, array], "b": "text"}) >= 2 * array.nbytes
    deep = value = []
    for _ in range(10_000):
        value.append(value := [])
    assert bytes_of(deep) > 10_000 * 56
