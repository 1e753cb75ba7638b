"""Whatever a machine can think of: no answer outside the document, and none of them a defect."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wire import TENSOR, as_image, form, post_vector

VISION = "/v1/refine/vision"
REFINE = "/v1/refine/{name}"
#: The stream never ends by itself, so it is not among them.
ROUTES = [
    "/v1/telemetry",
    "/v1/telemetry/schema",
    "/v1/audit/head",
    "/metrics",
    "/healthz",
    "/readyz",
    "/v1/status",
    "/v1/plugins",
]


def bounded(examples):
    """So many examples, the same in every run, none with a time limit of its own."""
    reused = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=reused
    )


@pytest.fixture(autouse=True)
def nothing_is_lost(service):
    """After each run no slot is taken and no energy is locked."""
    yield
    service.wait_for(lambda: service.hrm.ledger.balance.locked_uatp == 0)
    service.wait_for(lambda: all(lane["live"] == 0 for lane in service.hrm.status().values()))
    assert service.hrm.ledger.scenes == 0


@pytest.fixture(scope="module")
def document(service):
    """The application's own OpenAPI document."""
    import schemathesis

    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


def checks_of(mode):
    from schemathesis.specs.openapi import checks

    return [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
        *([checks.negative_data_rejection] if mode == "negative" else []),
    ]


def fuzz(document, method, path, mode, examples, **fixed):
    """Ask an operation what schemathesis makes of its documentation."""
    from schemathesis import GenerationMode

    operation = document[path][method]

    @bounded(examples)
    @given(operation.as_strategy(generation_mode=GenerationMode(mode)))
    def ask(case):
        if fixed:
            case.path_parameters = fixed
        reply = case.call()
        assert reply.status_code < 500 or b"deadline_too_short" in reply.content, reply.content
        case.validate_response(reply, checks=checks_of(mode))

    ask()


@pytest.mark.parametrize("path", ROUTES)
def test_requests_made_from_the_document_get_answers_that_it_knows(document, path):
    fuzz(document, "GET", path, "positive", 10)


@pytest.mark.parametrize("plugin", ["vision", "quadratic"])
def test_frames_made_from_the_document_get_answers_that_it_knows(document, plugin):
    fuzz(document, "POST", REFINE, "positive", 100, name=plugin)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/scenes"), ("POST", "/v1/quality"), ("GET", REFINE), ("DELETE", REFINE)],
)
def test_scenes_reports_and_names_made_from_the_document_get_answers_that_it_knows(document, method, path):
    fuzz(document, method, path, "positive", 50)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", REFINE), ("POST", "/v1/scenes"), ("POST", "/v1/quality"), ("GET", "/v1/telemetry")],
)
def test_requests_that_break_the_document_are_refused_as_it_says(document, method, path):
    fuzz(document, method, path, "negative", 100)


FRAME = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
IMAGES = {kind: as_image(FRAME, kind) for kind in ("JPEG", "PNG", "WEBP")}


@st.composite
def corrupted_images(draw):
    """An image with some of its bytes overwritten, cut out or doubled, or its end missing."""
    content = bytearray(IMAGES[draw(st.sampled_from(sorted(IMAGES)))])
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, len(content) - 1))
        length = draw(st.integers(1, 8))
        content[place : place + length] = draw(
            st.one_of(
                st.binary(min_size=length, max_size=length), st.just(b""), st.just(content[:length] * 2)
            )
        )
        if not content:
            content = bytearray(b"\0")
    return bytes(content[: draw(st.integers(1, len(content)))])


#: What belongs to a documented answer to anything that was meant to be a frame.
ANSWERS = {200, 413, 415, 422, 429}


def assert_answered(reply, also=frozenset()):
    assert reply.status_code in ANSWERS | also, reply.text
    if reply.status_code != 200:
        assert set(reply.json()["error"]) == {"code", "message"}


@bounded(250)
@given(
    content=corrupted_images(), media_type=st.sampled_from(["image/jpeg", "image/png", "image/webp", TENSOR])
)
def test_corrupted_images_are_refined_or_refused(service, content, media_type):
    reply = service.client.post(
        VISION, content=content, params={"max_steps": 0}, headers={"Content-Type": media_type}
    )
    assert_answered(reply)


@bounded(100)
@given(
    content=st.binary(max_size=256),
    media_type=st.sampled_from(
        ["image/png", TENSOR, "application/json", "multipart/form-data; boundary=x", "", "text/plain"]
    ),
)
def test_random_bodies_are_refused(service, content, media_type):
    reply = service.client.post(VISION, content=content, headers={"Content-Type": media_type})
    assert_answered(reply)
    assert reply.status_code != 200


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@bounded(150)
@given(
    frame=st.fixed_dictionaries(
        {},
        optional={
            "base64": st.sampled_from(["", "AAAA", "AAA", "\n"]) | JSON_VALUES,
            "shape": st.lists(st.integers(-1, 5), max_size=4) | JSON_VALUES,
            "dtype": st.sampled_from(["uint8", "float16", "float32"]) | JSON_VALUES,
        },
    )
    | JSON_VALUES,
    budget=st.dictionaries(
        st.sampled_from(["max_steps", "deadline_ms", "atp", "eps", "quality", "other"]),
        JSON_VALUES,
        max_size=3,
    )
    | JSON_VALUES,
)
def test_documents_of_about_the_right_shape_are_refined_or_refused(service, frame, budget):
    content = json.dumps({"frame": frame, "budget": budget}).encode()  # NaN and lone surrogates included
    headers = {"Content-Type": "application/json"}
    assert_answered(service.client.post(VISION, content=content, headers=headers))


@bounded(150)
@given(
    content=st.binary(max_size=64),
    shape=st.lists(st.integers(0, 9), max_size=4).map(lambda shape: ",".join(map(str, shape)))
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    dtype=st.sampled_from(["uint8", "float16", "float32", "float64", "O", ""]),
)
def test_tensors_of_any_shape_are_refined_or_refused(service, content, shape, dtype):
    headers = {"Content-Type": TENSOR, "Sage-Tensor-Shape": shape, "Sage-Tensor-Dtype": dtype}
    reply = service.client.post(VISION, content=content, params={"max_steps": 0}, headers=headers)
    assert_answered(reply)


@bounded(100)
@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b'; name="frame"; filename="a"',
                    b'; name="frame"',
                    b'; name="shape"',
                    b'; name="eps"',
                    b"",
                    b";",
                ]
            ),
            st.sampled_from([IMAGES["PNG"], b"1", b"2,2", b""]) | st.binary(max_size=32),
        ),
        max_size=4,
    ),
    end=st.integers(0, 8),
)
def test_forms_of_any_parts_are_refined_or_refused(service, parts, end):
    content = form(*parts)
    reply = service.client.post(
        VISION + "?max_steps=0",
        content=content[: len(content) - end],
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert_answered(reply)


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "budget": st.dictionaries(
            st.sampled_from(["max_steps", "branches", "atp", "deadline_ms", "priority", "other"]),
            st.integers(0, 9) | JSON_VALUES,
            max_size=3,
        )
        | JSON_VALUES,
        "priority": st.integers(-9, 9) | JSON_VALUES,
        "stream_id": st.sampled_from(["left", "right"]) | JSON_VALUES,
        "keep": st.just("latest") | JSON_VALUES,
    },
)
MEMBERS = st.builds(
    lambda plugin, content, options: {**plugin, **content, **options},
    st.fixed_dictionaries({"plugin": st.sampled_from(["vision", "quadratic", "audio"]) | JSON_VALUES}),
    st.just({"frame": {"base64": "AAAA" * 8, "shape": [6], "dtype": "float32"}})
    | st.fixed_dictionaries({"frame": JSON_VALUES})
    | st.fixed_dictionaries({"problem": JSON_VALUES}),
    OPTIONS,
)
SHARED = st.dictionaries(
    st.sampled_from(["atp", "deadline_ms", "policy", "other"]),
    st.integers(1, 9) | st.sampled_from(["greedy", "equal"]) | JSON_VALUES,
    max_size=2,
)


@bounded(150)
@given(members=st.lists(MEMBERS, max_size=4) | JSON_VALUES, shared=SHARED)
def test_scenes_of_about_the_right_shape_are_refined_or_refused(service, members, shared):
    content = json.dumps({**shared, "members": members}).encode()
    headers = {"Content-Type": "application/json"}
    assert_answered(service.client.post("/v1/scenes", content=content, headers=headers), also={404, 503})


@bounded(100)
@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b'; name="vision"; filename="a"',
                    b'; name="quadratic"; filename="a"\r\nContent-Type: application/json',
                    b'; name="vision"',
                    b'; name="scene"',
                    b"",
                ]
            ),
            st.sampled_from([IMAGES["PNG"], b"{}", b'{"members": [{}]}', b'{"atp": 5}'])
            | st.binary(max_size=32),
        ),
        max_size=4,
    )
)
def test_scene_forms_of_any_parts_are_refined_or_refused(service, parts):
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert_answered(service.client.post("/v1/scenes", content=form(*parts), headers=headers), also={404, 503})


@bounded(60)
@given(
    prefer=st.sampled_from(["respond-async", "respond-async, wait=1", "wait=1", "wait=0", "wait=x"]),
    name=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8),
    accept=st.sampled_from(["application/json", TENSOR, "image/png", "text/event-stream"]),
    gives_up=st.booleans(),
)
def test_later_answers_of_any_name_are_found_where_they_are_said_to_be(
    service, prefer, name, accept, gives_up
):
    headers = {"Prefer": prefer, "X-Request-Id": name, "Accept": accept}
    reply = post_vector(service.client, headers=headers)
    if reply.status_code != 202:
        assert reply.status_code in (200, 406, 422)
        return
    place = reply.headers["Location"]
    answer = service.client.get(place, headers={"Accept": accept})
    assert answer.status_code in (200, 202, 406), answer.text
    if gives_up:
        assert service.client.delete(place).status_code == 204
        assert service.client.get(place).status_code == 404


def test_nothing_of_all_this_has_hurt_the_service(service):
    assert service.client.get("/readyz").json() == {"ready": True, "state": "ready", "problems": []}
    assert service.hrm.telemetry.status()["lost_directory"] == 0
