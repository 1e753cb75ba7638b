"""Clients that other tools generate from /openapi.json work."""

from __future__ import annotations

import base64
import importlib
import io
import json
import subprocess
import sys

import pytest

from sage_edge import Settings
from sage_edge.plugins.control import ControlPlugin
from tests.kinds import LettersPlugin
from tests.sage_edge.service.conftest import Service
from tests.sage_edge.service.test_control_bodies import QP


@pytest.fixture(scope="module")
def served(vision):
    settings = Settings(slots=2, threads=1, telemetry_dir="")
    plugins = {"vision": vision, "control": ControlPlugin(), "letters": LettersPlugin()}
    with Service(plugins, settings) as running:
        yield running


@pytest.fixture(scope="module")
def generated(served, tmp_path_factory):
    """A folder with ``sage_client``, a package, and ``sage_models``, a module."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(served.client.get("/openapi.json").text)
    (folder / "config.yml").write_text("post_hooks: []\n")  # which would format it
    client = ["generate", "--path", "openapi.json", "--config", "config.yml", "--meta", "none"]
    models = ["--input", "openapi.json", "--input-file-type", "openapi", "--formatters", "builtin"]
    for command in (
        ["openapi_python_client", *client, "--output-path", "sage_client"],
        [
            "datamodel_code_generator",
            *models,
            "--output-model-type",
            "pydantic_v2.BaseModel",
            "--output",
            "sage_models.py",
        ],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def client(served, generated):
    """A client of the service, and the generated package that it is of."""
    package = importlib.import_module("sage_client")
    with package.Client(base_url=served.url) as made:
        yield made


def test_a_generated_client_refines_a_frame(client, nuclei_bytes):
    from sage_client import models
    from sage_client.api.refine import refine

    body = models.RefineFrame(
        frame=models.Frame(base64=base64.b64encode(nuclei_bytes).decode()), budget=models.Budget(eps=0.0)
    )
    result = refine.sync("vision", client=client, body=body, max_steps=2)
    assert isinstance(result, models.Result)
    assert (result.steps, result.halt_reason, result.is_partial) == (2, "max_steps", True)
    assert result.answer.shape == [256, 256]
    assert base64.b64decode(result.answer.png_base64).startswith(b"\x89PNG")


def test_a_generated_client_sends_a_form(client, nuclei_bytes):
    from sage_client import models
    from sage_client.api.refine import refine
    from sage_client.types import File

    body = models.Form(frame=File(io.BytesIO(nuclei_bytes), "a.webp", "image/webp"))
    assert refine.sync("vision", client=client, body=body, max_steps=1, eps=0.0).steps == 1


def test_a_generated_client_solves_a_problem_and_reads_what_the_plugin_says(client):
    from sage_client import models
    from sage_client.api.refine import refine

    body = models.RefineProblem(problem=models.Problem.from_dict(QP))
    result = refine.sync("control", client=client, body=body)
    assert result.answer["x"] == pytest.approx([-0.25, 1.25], abs=2e-3)
    assert result.trust is None


def test_a_generated_client_refines_a_text_and_a_scene(client):
    from sage_client import models
    from sage_client.api.refine import refine, refine_scene

    text = "aabbccddeeff"
    assert refine.sync("letters", client=client, body=models.RefineText(text=text)).e0 == 4.0
    members = [
        models.TextMember(plugin="letters", text=text),
        models.ProblemMember(plugin="control", problem=models.Problem.from_dict(QP)),
    ]
    scene = refine_scene.sync(client=client, body=models.Scene(members=members, policy="equal"))
    assert [type(result) for result in scene.results] == [models.Result] * 2
    assert scene.budget.policy == "equal"


def test_a_generated_client_reads_the_plugins_and_the_status(client):
    from sage_client.api.status import plugins, readyz, status

    described = plugins.sync(client=client)
    assert {name: described[name].takes for name in described.additional_keys} == {
        "vision": "frame",
        "control": "document",
        "letters": "text",
    }
    assert described["control"].halting.max_steps == 50
    assert status.sync(client=client).plugins["vision"].slots == 2
    assert readyz.sync(client=client).ready is True


def test_a_generated_client_gets_an_error_as_an_object(client):
    from sage_client import models
    from sage_client.api.refine import answer, refine

    refused = refine.sync("letters", client=client, body=models.RefineText(text="a\0"))
    assert isinstance(refused, models.Error)
    assert refused.error.code == "bad_frame"
    assert "NUL" in refused.error.message
    assert answer.sync("nobody", client=client).error.code == "unknown_request"


def test_a_generated_client_fetches_its_answer_later(client):
    from sage_client import models
    from sage_client.api.refine import answer, refine

    body = models.RefineText(text="abcdef")
    queued = refine.sync("letters", client=client, body=body, prefer="respond-async")
    assert isinstance(queued, models.Queued)
    found = answer.sync(queued.request_id, client=client)
    assert found.request_id == queued.request_id


def test_generated_models_read_what_the_service_answers(served, generated):
    models = importlib.import_module("sage_models")
    body = models.RefineText(text="abcdef", budget=models.Budget(max_steps=3))
    sent = json.loads(body.model_dump_json(exclude_none=True))
    reply = served.client.post("/v1/refine/letters", json=sent)
    assert models.Result.model_validate_json(reply.text).steps == 3
    status = models.Status.model_validate_json(served.client.get("/v1/status").text)
    assert set(status.plugins) == {"vision", "control", "letters"}
    error = served.client.post("/v1/refine/letters", content=b"")
    assert models.Error.model_validate_json(error.text).error.code == "bad_frame"
