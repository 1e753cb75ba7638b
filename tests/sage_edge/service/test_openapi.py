"""The OpenAPI document says all there is to say, and says it truly."""

from __future__ import annotations

import json

import pytest
from fastapi.routing import APIRoute

from sage_edge import FRAME
from sage_edge.service import models
from sage_edge.service.errors import STATUS
from tests.openapi import assert_fits, validator_of

IMAGES = ["image/jpeg", "image/png", "image/webp"]

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


#: What describes the API.
UNLISTED = {"GET /docs", "GET /docs/oauth2-redirect"}


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


def media(part):
    """Every media type object in a part of the document."""
    if isinstance(part, dict):
        yield from part.get("content", {}).items()
        for value in part.values():
            yield from media(value)


def examples(content):
    """The examples of a media type object."""
    if "example" in content:
        yield content["example"]
    yield from (example["value"] for example in content.get("examples", {}).values())


def test_every_example_is_valid_under_its_schema(document):
    count = 0
    for _, content in media(document["paths"]):
        for example in examples(content):
            validator_of(document, content["schema"]).validate(example)
            count += 1
    assert count > 50


def test_every_component_that_has_an_example_is_true_to_it(document):
    with_examples = {
        name: schema for name, schema in document["components"]["schemas"].items() if "examples" in schema
    }
    assert {"Result", "Error", "SceneResult", "Status", "PluginInfo", "TrustUpdate"} <= set(with_examples)
    for name, schema in with_examples.items():
        for example in schema["examples"]:
            validator_of(document, schema).validate(example)
            if hasattr(models, name):
                assert_fits(document, {"$ref": f"#/components/schemas/{name}"}, example)


def test_whatever_is_json_is_a_named_component(document):
    for name, _, reply in replies(document):
        for media_type, content in reply.get("content", {}).items():
            if media_type == "application/json":
                schema = content["schema"].get("additionalProperties", content["schema"])
                assert schema["$ref"].startswith("#/components/schemas/"), name
            elif content["schema"].get("format") != "binary":
                assert "example" in content, (name, media_type)


def test_every_component_is_referred_to(document):
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name


def test_every_error_has_the_one_shape_and_a_code_of_its_status(document):
    for name, status, reply in replies(document):
        assert reply["description"], name
        if status >= 400 and "/readyz" not in name:
            content = reply["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Error"}
            for example in examples(content):
                assert CODES[example["error"]["code"]] == status, name
                assert example["error"]["message"], name
        assert ("Retry-After" in reply.get("headers", {})) == (status in (202, 429, 503)), name


def test_refine_documents_every_status_that_an_error_has(document):
    documented = {int(status) for status in document["paths"]["/v1/refine/{name}"]["post"]["responses"]}
    # 499 is for a caller who has gone, so that nobody reads it.
    assert documented == ({200, 202} | set(STATUS.values())) - {499}


def test_every_option_is_documented_once_and_once_in_json(document):
    operation = document["paths"]["/v1/refine/{name}"]["post"]
    budget = ["atp", "branches", "deadline_ms", "eps", "max_steps", "quality"]
    place = ["keep", "priority", "stream_id"]
    by_place = {}
    for parameter in operation["parameters"]:
        by_place.setdefault(parameter["in"], []).append(parameter["name"])
    assert sorted(by_place["query"]) == sorted(budget + place)
    assert sorted(by_place["header"]) == ["Prefer", "Sage-Tensor-Dtype", "Sage-Tensor-Shape"]
    assert "Sage-Max-Steps" in operation["description"]
    schemas = document["components"]["schemas"]
    assert sorted(schemas["RefineFrame"]["properties"]) == sorted(["budget", "frame", *place])
    assert sorted(schemas["Budget"]["properties"]) == budget


def test_the_ways_to_give_a_body_are_documented(document):
    content = document["paths"]["/v1/refine/{name}"]["post"]["requestBody"]["content"]
    schemas = document["components"]["schemas"]
    assert sorted(content) == sorted(
        ["application/json", "multipart/form-data", "application/octet-stream", *IMAGES]
    )
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/RefineFrame"}
    assert content["multipart/form-data"]["schema"] == {"$ref": "#/components/schemas/Form"}
    assert schemas["Frame"] == FRAME.schema
    assert schemas["Form"]["properties"] == {"frame": {"type": "string", "format": "binary"}}


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
