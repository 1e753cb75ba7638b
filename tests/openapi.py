"""The OpenAPI document as a judge of what is sent and answered."""

from __future__ import annotations

from jsonschema import Draft202012Validator

from sage_edge.service import models


def validator_of(document, schema):
    """A validator of a schema that stands in the document, and may refer to its components."""
    return Draft202012Validator({**schema, "components": document["components"]})


def assert_as_documented(document, method, path, reply):
    """A JSON reply is valid, and has no field that its model does not name, at any depth.

    Args:
        document: What /openapi.json says.
        method, path: The operation, as the document has it.
        reply: An httpx.Response.
    """
    documented = document["paths"][path][method]["responses"][str(reply.status_code)]
    schema = documented["content"]["application/json"]["schema"]
    assert_fits(document, schema, reply.json())
    for name in documented.get("headers", {}):
        assert name in reply.headers, name


def assert_fits(document, schema, value):
    """A value is valid, and its model keeps all of it."""
    validator_of(document, schema).validate(value)
    if "$ref" in schema:
        model = getattr(models, schema["$ref"].rpartition("/")[2])
        kept = model.model_validate(value).model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert kept == value
    else:  # by name
        for entry in value.values():
            assert_fits(document, schema["additionalProperties"], entry)
