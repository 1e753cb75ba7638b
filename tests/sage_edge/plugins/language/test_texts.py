"""Texts that are kept by their digest, within so many bytes."""

from __future__ import annotations

import threading

import pytest

from sage_edge.errors import FrameTooLargeError, ProblemError
from sage_edge.plugins.language.texts import MOST_WINDOWS, TextStore, read_text, text_id_of
from tests.fake_reader import fake_plugin


@pytest.fixture(scope="module")
def read():
    model = fake_plugin().model
    return lambda text_id, passages: read_text(model.tokenizer, model.window, model.stems, text_id, passages)


def test_a_text_is_read_once_and_found_by_its_id(read):
    asked = []
    store = TextStore(lambda *text: asked.append(text) or read(*text), 1 << 20)
    first = store.text(("one two", "three"))
    assert store.text(("one two", "three")) is first
    assert store.by_id(first.text_id) is first
    assert len(asked) == 1


def test_where_passages_end_counts_for_the_id():
    assert len({text_id_of(passages) for passages in [("ab", "c"), ("a", "bc"), ("abc",), ("", "abc")]}) == 4


def test_the_texts_that_were_asked_of_last_are_kept_within_the_bytes(read):
    size = read("", ("word " * 500,)).size_bytes
    store = TextStore(read, int(2.5 * size))
    one, two = (store.text((word + " word" * 499,)) for word in ("first", "second"))
    store.by_id(one.text_id)
    three = store.text(("third" + " word" * 499,))
    assert store.by_id(one.text_id) is one
    assert store.by_id(three.text_id) is three
    with pytest.raises(ProblemError, match="send the text again"):
        store.by_id(two.text_id)
    assert 0 < store.size_bytes <= 2.5 * size


def test_a_text_that_is_larger_than_the_memory_is_read_and_not_kept(read):
    store = TextStore(read, 100)
    text = store.text(("some words",))
    assert store.size_bytes == 0
    with pytest.raises(ProblemError):
        store.by_id(text.text_id)


def test_the_memory_counts_right_when_many_threads_send_the_same_texts(read):
    store = TextStore(read, 1 << 20)
    passages = [(f"text {number}",) for number in range(6)]
    threads = [threading.Thread(target=lambda: [store.text(one) for one in passages]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.size_bytes == sum(store.by_id(text_id_of(one)).size_bytes for one in passages)


def test_more_windows_than_the_limit_are_refused_with_their_number(read):
    with pytest.raises(
        FrameTooLargeError, match=f"{MOST_WINDOWS} windows of 132 word pieces, got {MOST_WINDOWS + 1}"
    ):
        read("", ("word",) * (MOST_WINDOWS + 1))


@pytest.mark.parametrize("passages", [("",), ("", " \n"), ("\x07\x1b",), ("\u200b",)])
def test_a_text_without_words_is_refused(read, passages):
    with pytest.raises(ProblemError, match="expected words"):
        read("", passages)
