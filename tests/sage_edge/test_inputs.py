"""The kinds of input: what each makes of bytes and of JSON, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sage_edge import inputs
from sage_edge.errors import FrameError, FrameTooLargeError, InputError, MemoryFullError, ShapeError
from sage_edge.inputs import DOCUMENT, FRAME, TEXT, Limits, Part
from tests.kinds import NumbersKind
from tests.wire import as_image

LIMITS = Limits(max_pixels=1 << 16, max_bytes=1 << 16)
PICTURE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [FRAME, DOCUMENT, TEXT, NumbersKind()], ids=lambda kind: kind.name)
def test_the_example_of_a_kind_is_valid_under_its_schema(kind):
    Draft202012Validator.check_schema(kind.schema)
    Draft202012Validator(kind.schema).validate(kind.example)
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in kind.suffixes)


# Frames


@pytest.mark.parametrize(
    "part",
    [
        Part(as_image(PICTURE, "PNG"), "image/png"),
        Part(as_image(PICTURE, "PNG")),
        Part(PICTURE.tobytes(), "application/octet-stream", "4,5,3", "uint8"),
        Part(PICTURE.tobytes(), "", "4, 5, 3", "uint8"),
        Part(npy(PICTURE), "application/octet-stream"),
        Part(npy(PICTURE)),
    ],
)
def test_a_frame_is_read_whatever_way_it_came(part):
    np.testing.assert_array_equal(FRAME.from_part(part, LIMITS), PICTURE)


@given(
    shape=st.lists(st.integers(1, 5), max_size=4),
    dtype=st.sampled_from(["uint8", "float16", "float32"]),
)
def test_a_numpy_file_and_a_raw_tensor_are_the_same_frame(shape, dtype):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    frame = FRAME.from_part(Part(npy(array)), LIMITS)
    np.testing.assert_array_equal(frame, array)
    assert (frame.dtype, frame.shape) == (array.dtype, array.shape)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (npy(PICTURE)[:-1], FrameError, "broken"),
        (npy(PICTURE)[:20], FrameError, "broken"),
        (b"\x93NUMPY", FrameError, "broken"),
        (npy(PICTURE.astype(np.float64)), ShapeError, "uint8, float16, float32, got 'float64'"),
        (npy(np.zeros((512, 513), np.uint8)), FrameTooLargeError, "at most 65536 pixels"),
        (
            npy(PICTURE).replace(b"(4, 5, 3), }          ", b"(4, 500000000, 300), }"),
            FrameError,
            "broken",
        ),
    ],
)
def test_a_numpy_file_that_is_no_frame_is_refused(content, error, words):
    with pytest.raises(error, match=words):
        FRAME.from_part(Part(content), LIMITS)


def test_a_numpy_file_of_objects_is_not_unpickled():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], object), allow_pickle=True)
    with pytest.raises(FrameError, match="broken"):
        FRAME.from_part(Part(buffer.getvalue()), LIMITS)


# Documents


@pytest.mark.parametrize("media_type", ["application/json", "application/octet-stream", ""])
def test_a_document_is_the_object_of_its_json(media_type):
    document = DOCUMENT.from_part(Part(json.dumps(DOCUMENT.example).encode(), media_type), LIMITS)
    assert document == DOCUMENT.example


@pytest.mark.parametrize(
    "content", [b"[1]", b"null", b"{", b"text", b"\xff\xfe", b"PK", b"PK\x03\x04 no archive"]
)
def test_what_is_no_document_is_refused(content):
    with pytest.raises(FrameError, match="problem: "):
        DOCUMENT.from_part(Part(content), LIMITS)


# Texts


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_a_text_is_the_same_from_bytes_and_from_json(text):
    assert TEXT.from_json(text, LIMITS) == text
    marked = "\ufeff" + text
    assert TEXT.from_part(Part(marked.encode(), "text/plain"), LIMITS) == text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff", "text: expected UTF-8, got the byte 0xff at 0"),
        ("é".encode("latin-1"), "text: expected UTF-8, got the byte 0xe9 at 0"),
        (b"ab\xc3", "text: expected UTF-8, got the byte 0xc3 at 2"),
        ("ab".encode("utf-16"), "text: expected UTF-8, got the byte 0xff at 0"),
        (b"\xef\xbb\xbf", "text: expected a text that is not empty"),
        (b"ab\0", "text: expected no NUL character, got one at 2"),
    ],
)
def test_bytes_that_are_no_text_are_refused_by_their_place(content, words):
    with pytest.raises(FrameError, match=words):
        TEXT.from_part(Part(content, "text/plain"), LIMITS)


@pytest.mark.parametrize("value", [None, 5, [], {}, "", "\0", "a\ud800"])
def test_json_that_is_no_text_is_refused(value):
    with pytest.raises(FrameError, match="text: expected"):
        TEXT.from_json(value, LIMITS)


@given(
    content=st.binary(min_size=1, max_size=64), media_type=st.sampled_from(["", "application/octet-stream"])
)
def test_any_bytes_are_an_input_or_an_input_error(content, media_type):
    for kind in (FRAME, DOCUMENT, TEXT):
        for start in (b"", b"\x93NUMPY", b"PK\x03\x04", b"{"):
            try:
                kind.from_part(Part(start + content, media_type), LIMITS)
            except InputError as exc:
                assert "expected" in str(exc) or "broken" in str(exc) or "cannot be read" in str(exc)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[" + b"[]," * inputs.MOST_JSON_PARTS + b"1]", "131072 texts, lists and objects, got 131073"),
        (b"[" + b'"",' * inputs.MOST_JSON_PARTS + b"1]", "131072 texts, lists and objects"),
        (b"[" + b"1," * inputs.MOST_JSON_VALUES + b"1]", "3145728 values"),
    ],
    ids=["lists", "texts", "values"],
)
def test_json_that_would_hold_everybody_up_is_refused_unread(content, expected):
    with pytest.raises(FrameTooLargeError, match=expected):
        inputs.parse_json(content, "body")


def test_the_largest_quadratic_program_that_is_taken_fits_into_json():
    size = 1024
    row = "[" + ",".join(["0.5"] * size) + "]"
    matrix = "[" + ",".join([row] * size) + "]"
    document = inputs.parse_json(f'{{"P": {matrix}, "A": {matrix}}}', "body")
    assert np.shape(document["P"]) == np.shape(document["A"]) == (size, size)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(1 << 63), (1 << 64) - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        st.lists,
    )
)
def test_json_is_read_as_python_reads_it(value):
    assert inputs.parse_json(json.dumps(value), "body") == json.loads(json.dumps(value))


@pytest.mark.parametrize("size", [1, 2, 3, (3 << 18) - 1, 3 << 18, (3 << 18) + 1, (3 << 19) + 2])
def test_base64_is_decoded_exactly_wherever_its_pieces_end(size):
    content = np.random.default_rng(size).bytes(size)
    assert inputs._from_base64(base64.b64encode(content).decode()) == content


@pytest.mark.parametrize(
    "text", ["QQ==QQ==", "Q", "QQ", "QQ=", "QQ===", "Q Q=", "ä" * 4, "QQ==" * (1 << 18) + "QQ=="]
)
def test_what_is_no_base64_is_refused(text):
    with pytest.raises(FrameError, match=r"frame\.base64"):
        inputs._from_base64(text)


def archive(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def numpy_file(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "part", "least"),
    [
        (DOCUMENT, Part(archive(P=np.zeros((80, 80)))), 2 * 80 * 80 * 8),
        (DOCUMENT, Part(archive(**{f"a{n}": np.zeros(1) for n in range(300)})), 300 * 1000),
        (FRAME, Part(numpy_file(np.zeros((90, 90, 3), np.uint8))), 3 * 90 * 90),
        (FRAME, Part(bytes(90 * 90), shape="90,90", dtype="uint8"), 90 * 90),
        (TEXT, Part(b"x" * 5000 + "😀".encode()), 4 * 5000),
    ],
)
def test_room_is_asked_for_before_an_input_takes_it_and_its_refusal_is_told(kind, part, least):
    asked = []

    def refuse(size):
        asked.append(size)
        if sum(asked) >= least:
            raise MemoryFullError("no room")

    with pytest.raises(MemoryFullError, match="no room"):
        kind.from_part(part, replace(LIMITS, reserve=refuse))
