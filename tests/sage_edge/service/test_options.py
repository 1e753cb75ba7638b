"""Branches, priorities and streams, wherever they stand in a request."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sage_edge import Settings
from tests.quadratic import QuadraticPlugin
from tests.sage_edge.service.conftest import Gate, Service
from tests.sage_edge.service.test_scenes import encoded
from tests.wire import post_vector, tensor_headers

BAD_OPTIONS = [
    ("branches", "0"),
    ("branches", "9"),
    ("branches", "two"),
    ("priority", "-10"),
    ("priority", "10"),
    ("priority", "1.5"),
    ("stream_id", ""),
    ("stream_id", "a b"),
    ("stream_id", "x" * 129),
    ("keep", "newest"),
    ("keep", ""),
]


def post_document(service, **beside):
    return service.client.post("/v1/refine/quadratic", json={"frame": encoded(), **beside})


def post_form(service, **fields):
    content = np.full(6, 4.0, np.float32).tobytes()
    tensor = {"shape": "6", "dtype": "float32"}
    return service.client.post("/v1/refine/quadratic", files={"frame": ("a", content)}, data=tensor | fields)


@pytest.mark.parametrize(("name", "value"), BAD_OPTIONS)
def test_a_bad_option_is_refused_by_name_wherever_it_stands(service, name, value):
    header = "Sage-" + name.replace("_", "-").title()
    beside = {"budget": {name: value}} if name == "branches" else {name: value}
    for reply in (
        post_vector(service.client, params={name: value}),
        post_vector(service.client, headers={header: value}),
        post_form(service, **{name: value}),
        post_document(service, **beside),
    ):
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_parameter")
        assert reply.json()["error"]["message"].startswith((f"{name}: ", f"{header.lower()}: "))


def test_keeping_the_latest_of_no_stream_is_refused(service):
    reply = post_vector(service.client, params={"keep": "latest"})
    assert reply.status_code == 422
    assert reply.json()["error"]["message"] == "keep: expected a stream_id beside it, got none"
    kept = post_vector(service.client, params={"keep": "latest"}, headers={"Sage-Stream-Id": "left"})
    assert kept.status_code == 200


@pytest.mark.parametrize("name", ["priority", "stream_id", "keep"])
def test_in_json_a_place_stands_beside_the_budget_and_not_in_it(service, name):
    value = 1 if name == "priority" else "latest"
    reply = post_document(service, budget={name: value})
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_frame")
    assert f"{name} beside it" in reply.json()["error"]["message"]
    assert post_document(service, **{"stream_id": "left", name: value}).status_code == 200


def test_branches_are_refined_as_slots_are_free_and_share_the_cost(service):
    def branches(reply):
        assert reply.status_code == 200, reply.text
        return reply.json()["branches"]

    service.wait_for(lambda: service.hrm.status()["quadratic"]["live"] == 0)
    replies = [
        post_vector(service.client, params={"branches": 3}),
        post_vector(service.client, headers={"Sage-Branches": "3"}),
        post_form(service, branches="3"),
        post_document(service, budget={"branches": 3}),
    ]
    # Four slots, of which branches beyond the first may take half.
    assert [branches(reply) for reply in replies] == [3] * 4
    assert branches(post_vector(service.client, params={"branches": 8})) == 3
    assert branches(post_vector(service.client)) == 1
    for reply in replies:
        assert reply.json()["branch_id"] in (0, 1, 2)
        assert reply.json()["rewinds"] == 0


class Listed(QuadraticPlugin):
    """Lists the targets in the order in which they were given a slot."""

    def __init__(self, gate):
        super().__init__(before_step=gate.pass_step)
        self.begun = []

    def encode(self, inputs):
        self.begun += [float(target[0]) for target in inputs]
        return super().encode(inputs)


@pytest.fixture
def listed():
    """A service of one slot whose gate is closed behind a first request, and what was begun."""
    gate = Gate()
    plugin = Listed(gate)
    with Service({"quadratic": plugin}, Settings(slots=1, threads=1, telemetry_dir="")) as service:
        gate.close()
        gate.steps = 0
        first = threading.Thread(target=post_vector, args=(service.client,))
        first.start()
        service.wait_for(lambda: gate.steps == 1)
        plugin.begun.clear()
        yield service, gate, plugin.begun
        gate.open()
        first.join()


def post_in_turn(service, callers, requests):
    """Post requests one after the other, without waiting for answers."""
    asked = []
    for number, (target, params) in enumerate(requests, 1):
        asked.append(callers.submit(post_vector, service.client, (target,) * 6, params=params))
        service.wait_for(lambda count=number: service.hrm.ledger.scenes == 1 + count)
    return asked


def test_those_of_higher_priority_go_first(listed):
    service, gate, begun = listed
    priorities = [0, -9, 9, 3, 9]
    requests = [(float(n), {"priority": priority}) for n, priority in enumerate(priorities, 1)]
    with ThreadPoolExecutor(8) as callers:
        asked = post_in_turn(service, callers, requests)
        gate.open()
        assert [reply.result().status_code for reply in asked] == [200] * 5
    assert begun == [3.0, 5.0, 4.0, 1.0, 2.0]


def test_the_latest_frame_of_a_stream_takes_the_place_of_an_older_one_that_waits(listed):
    service, gate, begun = listed
    latest = {"keep": "latest"}
    with ThreadPoolExecutor(8) as callers:
        [left, right] = post_in_turn(
            service, callers, [(1.0, {"stream_id": "left"}), (2.0, {"stream_id": "right"})]
        )
        newer = callers.submit(post_vector, service.client, (3.0,) * 6, params=latest | {"stream_id": "left"})
        gone = left.result()
        gate.open()
        assert (right.result().status_code, newer.result().status_code) == (200, 200)
    assert (gone.status_code, gone.json()["error"]["code"]) == (409, "superseded")
    assert "'left'" in gone.json()["error"]["message"]
    assert begun == [2.0, 3.0]


def test_a_superseded_event_stream_ends_with_its_error(listed):
    service, gate, _ = listed
    params = {"stream_id": "left", "keep": "latest"}
    array = np.ones(6, np.float32)
    headers = tensor_headers(array) | {"Accept": "text/event-stream"}
    with ThreadPoolExecutor(1) as callers:
        older = callers.submit(
            service.client.post,
            "/v1/refine/quadratic",
            params=params,
            content=array.tobytes(),
            headers=headers,
        )
        service.wait_for(lambda: service.hrm.ledger.scenes == 2)
        newer = threading.Thread(target=post_vector, args=(service.client,), kwargs={"params": params})
        newer.start()
        assert 'event: error\ndata: {"error": {"code": "superseded"' in older.result().text
        gate.open()
        newer.join()
