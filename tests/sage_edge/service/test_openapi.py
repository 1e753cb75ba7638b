"""The OpenAPI document says all there is to say, and says it truly."""

from __future__ import annotations

import pytest
from fastapi.routing import APIRoute
from jsonschema import Draft202012Validator

from sage_edge.service.errors import STATUS
from tests.wire import post_vector

CODES = {kind.code: status for kind, status in STATUS.items()} | {"not_found": 404}


@pytest.fixture(scope="module")
def document(service):
    return service.client.get("/openapi.json").json()


def operations(document):
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def replies(document):
    return [
        (f"{name} {status}", int(status), reply)
        for name, operation in operations(document)
        for status, reply in operation["responses"].items()
    ]


def test_the_document_is_valid_openapi(service):
    import schemathesis

    schemathesis.openapi.from_url(f"{service.url}/openapi.json").validate()


def test_the_routes_of_the_design_are_there_and_no_others(document):
    assert sorted(name for name, _ in operations(document)) == [
        "DELETE /v1/refine/{name}",
        "GET /healthz",
        "GET /metrics",
        "GET /readyz",
        "GET /v1/audit/head",
        "GET /v1/plugins",
        "GET /v1/refine/{name}",
        "GET /v1/status",
        "GET /v1/telemetry",
        "GET /v1/telemetry/schema",
        "GET /v1/telemetry/stream",
        "POST /v1/quality",
        "POST /v1/refine/{name}",
        "POST /v1/scenes",
    ]


#: What describes the API, or is only the head of what is described.
UNLISTED = {"GET /docs", "GET /docs/oauth2-redirect", "HEAD /healthz", "HEAD /readyz"}


def test_every_route_of_the_application_is_documented(service, document):
    def routes(router):
        for route in router.routes:
            if isinstance(route, APIRoute):
                yield from ((method, route.path) for method in route.methods)
            elif hasattr(route, "original_router"):
                yield from routes(route.original_router)

    served = set(routes(service.app))
    assert served
    documented = {name for name, _ in operations(document)}
    assert {f"{method} {path}" for method, path in served} == documented | UNLISTED


def test_every_operation_says_what_it_does(document):
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name


def test_every_textual_answer_has_an_example_of_its_schema(document):
    for name, _, reply in replies(document):
        assert reply["description"], name
        for media_type, content in reply.get("content", {}).items():
            if content["schema"].get("format") == "binary":
                continue
            assert "example" in content, (name, media_type)
            Draft202012Validator(content["schema"]).validate(content["example"])


def test_every_error_has_the_one_shape_and_a_code_of_its_status(document):
    for name, status, reply in replies(document):
        if status >= 400 and "/readyz" not in name:
            error = reply["content"]["application/json"]["example"]["error"]
            assert CODES[error["code"]] == status, name
            assert error["message"], name
        assert ("Retry-After" in reply.get("headers", {})) == (status in (202, 429, 503)), name


def test_refine_documents_every_status_that_an_error_has(document):
    documented = {int(status) for status in document["paths"]["/v1/refine/{name}"]["post"]["responses"]}
    # 499 is for a caller who has gone, so that nobody reads it.
    assert documented == ({200, 202} | set(STATUS.values())) - {499}


def test_every_option_is_documented_in_the_query_in_headers_in_a_form_and_in_json(document):
    operation = document["paths"]["/v1/refine/{name}"]["post"]
    budget = ["atp", "branches", "deadline_ms", "eps", "max_steps", "quality"]
    place = ["keep", "priority", "stream_id"]
    names = sorted(budget + place)
    by_place = {}
    for parameter in operation["parameters"]:
        by_place.setdefault(parameter["in"], []).append(parameter["name"].lower())
    bodies = operation["requestBody"]["content"]
    assert sorted(by_place["query"]) == names
    for name in names:
        assert f"sage-{name.replace('_', '-')}" in by_place["header"]
        assert name in bodies["multipart/form-data"]["schema"]["properties"]
    document = bodies["application/json"]["schema"]["properties"]
    assert sorted(document) == sorted(["budget", "frame", "problem", *place])
    assert sorted(document["budget"]["properties"]) == budget


def test_the_ranges_of_the_options_are_documented(document):
    parameters = document["paths"]["/v1/refine/{name}"]["post"]["parameters"]
    ranges = {
        parameter["name"]: {
            key: value
            for key, value in parameter["schema"]["anyOf"][0].items()
            if key not in ("type", "description")
        }
        for parameter in parameters
        if parameter["in"] == "query"
    }
    assert ranges == {
        "max_steps": {"minimum": 0},
        "deadline_ms": {"exclusiveMinimum": 0, "maximum": 1e12},
        "atp": {"exclusiveMinimum": 0, "maximum": 1e12},
        "eps": {"minimum": 0},
        "quality": {"exclusiveMinimum": 0, "maximum": 1},
        "branches": {"minimum": 1, "maximum": 8},
        "priority": {"minimum": -9, "maximum": 9},
        "stream_id": {"pattern": r"^[\x21-\x7e]{1,128}$"},
        "keep": {"const": "latest"},
    }


@pytest.mark.parametrize("plugin", ["vision", "quadratic"])
def test_an_answer_fits_its_schema_and_the_example_has_its_fields(service, document, nuclei_bytes, plugin):
    reply = document["paths"]["/v1/refine/{name}"]["post"]["responses"]["200"]["content"]["application/json"]
    if plugin == "vision":
        answer = service.client.post("/v1/refine/vision", content=nuclei_bytes).json()
    else:
        answer = post_vector(service.client).json()
    Draft202012Validator(reply["schema"]).validate(answer)
    assert sorted(answer) == sorted(reply["example"]) == sorted(reply["schema"]["properties"])
