"""Every error has a code and a status of its own kind, and one shape."""

from __future__ import annotations

import pytest

from sage_edge import Settings, errors
from sage_edge.service.errors import STATUS, error_body, error_reply
from tests.quadratic import QuadraticPlugin
from tests.sage_edge.service.conftest import Service
from tests.wire import post_vector


def every_class(root=errors.SageError):
    return {root}.union(*(every_class(child) for child in root.__subclasses__()))


CLASSES = {kind for kind in every_class() if kind.__module__ == errors.__name__}


def test_every_class_of_error_has_a_status_and_no_status_is_for_nobody():
    assert set(STATUS) == CLASSES


def test_every_class_of_error_has_a_code_of_its_own():
    codes = [kind.code for kind in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(code.isidentifier() and code == code.lower() for code in codes)


@pytest.mark.parametrize("kind", sorted(CLASSES, key=lambda kind: kind.code))
def test_the_fault_is_the_callers_for_input_and_ours_otherwise(kind):
    callers = (
        errors.InputError,
        errors.CapacityError,
        errors.BudgetError,
        errors.SupersededError,
        errors.UnauthorizedError,
        errors.RateLimitError,
        errors.CancelledRequestError,
    )
    status = STATUS[kind]
    assert (400 <= status < 500) == issubclass(kind, callers)
    retry = error_reply(kind("why")).headers.get("Retry-After")
    assert (retry is not None) == (status in (429, 503))


def test_a_long_input_is_not_quoted_in_full():
    shown = error_body("bad_frame", "got " + "x" * 1_000_000)["error"]["message"]
    assert len(shown) < 500
    assert shown.startswith("got xxx")


class _OwnError(errors.ShapeError):
    code = "no_cat"


class _Moody(QuadraticPlugin):
    """Refuses with an error of its own, fails to prepare, or fails in a step."""

    def prepare(self, frame):
        if frame[0] == 1:
            raise _OwnError("frame: expected a cat, got a dog")
        if frame[0] == 2:
            raise ZeroDivisionError("a defect of the plugin at /srv/alice")
        return super().prepare(frame)

    def advance(self, z, context, step_size):
        if 3 in context["target"][:, 0]:
            raise ZeroDivisionError("a defect of the engine at /srv/alice")
        return super().advance(z, context, step_size)


@pytest.fixture(scope="module")
def moody():
    settings = Settings(slots=2, queue_size=8, threads=1, telemetry_dir="")
    with Service({"quadratic": _Moody()}, settings) as running:
        yield running


def test_a_plugins_own_class_of_error_counts_as_the_nearest_one(moody):
    reply = post_vector(moody.client, [1.0] * 6)
    assert reply.status_code == 422
    assert reply.json() == {"error": {"code": "no_cat", "message": "frame: expected a cat, got a dog"}}


@pytest.mark.parametrize(("value", "method"), [(2.0, "prepare"), (3.0, "advance")])
def test_a_defect_is_500_without_its_details_and_the_service_goes_on(moody, value, method, caplog):
    reply = post_vector(moody.client, [value] * 6)
    assert reply.status_code == 500
    error = reply.json()["error"]
    assert error["code"] == "plugin_failed"
    assert error["message"] == f"quadratic.{method}: raised ZeroDivisionError"
    assert "alice" not in reply.text
    assert "a defect of the" in caplog.text
    assert post_vector(moody.client).status_code == 200


def test_a_failed_step_ends_the_event_stream_with_the_error(moody):
    reply = post_vector(moody.client, [3.0] * 6, headers={"Accept": "text/event-stream"})
    assert (
        reply.text.rstrip()
        .split("\n\n")[-1]
        .startswith('event: error\ndata: {"error": {"code": "plugin_failed"')
    )
