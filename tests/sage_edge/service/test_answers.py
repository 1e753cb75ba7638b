"""Answers that are fetched later: they only improve, are kept for a while, and can be given up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from threading import Semaphore

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage_edge import Encoded, Settings
from tests.fakes import FakeClock
from tests.quadratic import QuadraticPlugin
from tests.sage_edge.service.conftest import Service
from tests.wire import TENSOR, post_vector, tensor_headers

ASYNC = {"Prefer": "respond-async"}


def post_later(service, values=(4.0,) * 6, headers=None, **params):
    """Post for a later answer; returns where it will be."""
    reply = post_vector(service.client, values, headers=ASYNC | (headers or {}), params=params)
    assert reply.status_code == 202, reply.text
    assert reply.json() == {"request_id": reply.headers["Sage-Request-Id"], "state": "queued"}
    assert reply.headers["Retry-After"] == "1"
    return reply.headers["Location"]


def final(service, place):
    """The final answer, once it is there."""
    replies = []

    def is_final():
        replies.append(service.client.get(place))
        return replies[-1].status_code not in (200, 202) or replies[-1].headers.get("Sage-Halt-Reason")

    service.wait_for(is_final)
    return replies[-1]


def test_the_final_answer_is_the_one_that_a_plain_post_gets(service):
    plain = post_vector(service.client).json()
    reply = final(service, post_later(service))
    assert reply.status_code == 200
    later = reply.json()
    ids = {"request_id", "run_id", "scene_id", "time_ms", "ATP_spent"}
    assert {k: v for k, v in later.items() if k not in ids} == {
        k: v for k, v in plain.items() if k not in ids
    }
    assert later["time_ms"]["total"] == later["time_ms"]["queue"] + later["time_ms"]["refine"]
    assert final(service, f"/v1/refine/{later['request_id']}").content == reply.content


def test_a_request_keeps_the_name_that_its_caller_gave_it(service):
    place = post_later(service, headers={"X-Request-Id": "robot?7#42%2F"})
    assert place == "/v1/refine/robot%3F7%2342%252F"
    assert final(service, place).json()["request_id"] == "robot?7#42%2F"


def test_what_waits_is_queued_and_what_runs_shows_its_best_so_far(gated):
    service, gate = gated
    gate.close()
    running = post_later(service, eps=0)
    service.wait_for(lambda: gate.steps == 1)
    waiting = post_later(service)
    reply = service.client.get(waiting)
    assert (reply.status_code, reply.json()["state"]) == (202, "queued")
    assert reply.headers["Retry-After"] == "1"
    with ThreadPoolExecutor(1) as caller:
        asked = caller.submit(service.client.get, running)
        service.wait_for(lambda: service.hrm._served["quadratic"].worker._peeks)
        gate.let_one_pass()  # the next step stands at the gate while the answer is on its way
        reply = asked.result()
    gate.open()
    answer = reply.json()
    assert (reply.status_code, answer["halt_reason"], answer["is_partial"]) == (200, None, True)
    assert (answer["steps"], answer["E"]) == (1, 4.0)
    assert reply.headers["Sage-Halt-Reason"] == ""
    assert final(service, running).json()["steps"] == 20
    assert final(service, waiting).json()["halt_reason"] == "slope<eps"


class ScriptedPlugin(QuadraticPlugin):
    """Its state counts the steps; its energies are those of the script that is its input."""

    step_size = 1.0

    def prepare(self, frame):
        return np.pad(frame.astype(np.float32), (0, self.state_shape[0] - len(frame)), "edge")

    def encode(self, inputs):
        script = np.stack(inputs)
        return Encoded(
            np.zeros_like(script), {"target": script}, self.energies(np.zeros_like(script), script)
        )

    def advance(self, z, context, step_size):
        self._before_step()
        return np.ones_like(z), self.energies(z + 1, context["target"])

    def energies(self, z, script):
        return np.repeat(np.take_along_axis(script, z[:, :1].astype(int), 1), z.shape[1], axis=1)


class Turnstile:
    """Lets steps through one by one, once it is shut."""

    def __init__(self):
        self.is_shut = False
        self._permits = Semaphore(0)

    def pass_step(self):
        if self.is_shut:
            assert self._permits.acquire(timeout=30)

    def release(self, count=1):
        for _ in range(count):
            self._permits.release()


@pytest.fixture(scope="module")
def scripted():
    turnstile = Turnstile()
    plugin = ScriptedPlugin(size=16, before_step=turnstile.pass_step)
    with Service({"quadratic": plugin}, Settings(slots=1, threads=1, telemetry_dir="")) as running:
        turnstile.is_shut = True
        yield running, turnstile
        turnstile.is_shut = False
        turnstile.release(1000)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(st.floats(0.125, 0.875, width=32), min_size=2, max_size=16),
    pauses=st.lists(st.integers(0, 3), max_size=16),
)
def test_the_energy_of_successive_answers_never_rises_and_the_tag_tells_of_each_change(
    scripted, script, pauses
):
    """The oracle is the script: after k steps the answer is the least of its first k + 1 energies."""
    service, turnstile = scripted
    place = post_later(service, script, eps=0, max_steps=len(script) - 1)
    seen = []
    with ThreadPoolExecutor(1) as caller:
        while not seen or seen[-1][1]["halt_reason"] is None:
            turnstile.release(pauses.pop() if pauses else 0)
            asked = caller.submit(service.client.get, place)
            while not asked.done():
                turnstile.release()
                wait([asked], timeout=0.02)
            if asked.result().status_code == 200:
                seen.append((asked.result().headers["ETag"], asked.result().json()))
    for _, answer in seen:
        assert answer["E"] == min(script[: answer["steps"] + 1])
    for (tag, before), (next_tag, after) in pairwise(seen):
        assert after["E"] <= before["E"]
        is_same = (before["answer_step"], before["halt_reason"]) == (
            after["answer_step"],
            after["halt_reason"],
        )
        assert (tag == next_tag) == is_same
    tag, answer = seen[-1]
    assert answer["steps"] == len(script) - 1
    assert answer["is_partial"]
    known = service.client.get(place, headers={"If-None-Match": f'"other", W/{tag}'})
    assert (known.status_code, known.content, known.headers["ETag"]) == (304, b"", tag)


@pytest.mark.parametrize(("accept", "form"), [("image/png", b"\x89PNG"), (TENSOR, None)])
def test_an_answer_comes_in_the_form_that_is_accepted_with_a_tag_of_its_own(
    service, nuclei_bytes, accept, form
):
    url = "/v1/refine/vision?max_steps=1"
    place = service.client.post(url, content=nuclei_bytes, headers=ASYNC).headers["Location"]
    tag = final(service, place).headers["ETag"]
    reply = service.client.get(place, headers={"Accept": accept, "If-None-Match": tag})
    assert (reply.status_code, reply.headers["content-type"]) == (200, accept)
    assert reply.headers["ETag"] != tag
    assert reply.headers["Vary"] == "Accept"
    if form:
        assert reply.content.startswith(form)
    else:
        assert reply.headers["Sage-Tensor-Shape"] == "256,256"


def test_an_answer_is_no_event_stream(service):
    reply = service.client.get(post_later(service), headers={"Accept": "text/event-stream"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (406, "not_acceptable")


def test_an_event_stream_is_not_put_off(service):
    reply = post_vector(service.client, headers=ASYNC | {"Accept": "text/event-stream"})
    assert reply.status_code == 200
    assert "Preference-Applied" not in reply.headers
    assert reply.text.count("event: result") == 1


def test_a_request_that_nobody_posted_is_404(service):
    for method in ("GET", "DELETE"):
        reply = service.client.request(method, "/v1/refine/nobody")
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_request")
        assert "'nobody'" in reply.json()["error"]["message"]


@pytest.mark.parametrize("given_name", ["a/b", "/", ".", ".."])
def test_a_name_that_cannot_end_a_path_is_refused(service, given_name):
    reply = post_vector(service.client, headers=ASYNC | {"X-Request-Id": given_name})
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_parameter")
    assert "X-Request-Id" in reply.json()["error"]["message"]


def test_a_name_that_is_in_use_is_refused_and_the_first_one_keeps_it(service):
    name = {"X-Request-Id": "twice"}
    place = post_later(service, headers=name)
    reply = post_vector(service.client, headers=ASYNC | name)
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_parameter")
    assert final(service, place).status_code == 200
    assert service.client.delete(place).status_code == 204
    assert final(service, post_later(service, headers=name)).status_code == 200


# How long, and how many


def serve(clock=None, plugin=None, **given_settings):
    settings = Settings(slots=1, threads=1, telemetry_dir="", **given_settings)
    return Service({"quadratic": plugin or QuadraticPlugin()}, settings, clock)


def test_an_answer_is_kept_for_as_long_as_the_settings_say():
    clock = FakeClock(monotonic_ns=1_000_000_000)
    with serve(clock, results_keep_s=60.0) as service:
        place = post_later(service)
        assert final(service, place).status_code == 200
        clock.advance(59.9)
        assert service.client.get(place).status_code == 200
        clock.advance(0.2)
        assert service.client.get(place).json()["error"]["code"] == "unknown_request"


def test_no_more_are_kept_than_the_settings_say_and_what_ended_makes_way(gated):
    service, gate = gated
    service.hrm.requests._capacity = 1
    gate.close()
    first = post_later(service)
    refused = post_vector(service.client, headers=ASYNC)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    gate.open()
    assert final(service, first).status_code == 200
    second = post_later(service)
    assert service.client.get(first).status_code == 404
    assert final(service, second).status_code == 200


# Ends that are none


def test_a_request_that_failed_has_its_error_for_an_answer(gated):
    service, gate = gated
    gate.close()
    post_later(service)
    service.wait_for(lambda: gate.steps == 1)
    older = post_later(service, stream_id="left")
    newer = post_later(service, stream_id="left", keep="latest")
    reply = service.client.get(older)
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "superseded")
    gate.open()
    assert final(service, newer).status_code == 200


def test_a_deleted_request_ends_within_a_step_and_leaves_nothing_behind(gated):
    service, gate = gated
    gate.close()
    running = post_later(service, eps=0)
    service.wait_for(lambda: gate.steps == 1)
    waiting = post_later(service)
    with ThreadPoolExecutor(1) as caller:
        asked = caller.submit(service.client.get, running)
        service.wait_for(lambda: service.hrm._served["quadratic"].worker._peeks)
        for place in (running, waiting):
            reply = service.client.delete(place)
            assert (reply.status_code, reply.content) == (204, b"")
            assert service.client.get(place).status_code == 404
            assert service.client.delete(place).status_code == 404
        gate.open()
        assert asked.result().status_code == 404
    service.wait_for(lambda: service.hrm.ledger.balance.locked_uatp == 0)
    assert gate.steps == 1
    assert service.hrm.status()["quadratic"]["live"] == 0
    assert len(service.hrm.requests) == 0


def test_one_who_stops_asking_does_not_disturb_the_run(gated):
    """The peek that he asked for is answered to nobody."""
    service, gate = gated
    gate.close()
    place = post_later(service)
    service.wait_for(lambda: gate.steps == 1)
    ticket = service.hrm.requests.find(place.rpartition("/")[2])
    assert not service.hrm.peek(ticket).cancel()
    gate.open()
    assert final(service, place).status_code == 200


# Waiting


class SlowPlugin(QuadraticPlugin):
    """Takes 100 ms of the fake clock for a step."""

    def __init__(self, clock):
        super().__init__(before_step=lambda: clock.advance(0.1))


@pytest.mark.parametrize(
    ("headers", "params", "most_steps"),
    [
        ({"Prefer": "wait=1"}, {}, 10),
        ({"Prefer": "wait=1"}, {"deadline_ms": 100_000}, 10),
        ({"Prefer": "wait=100"}, {"deadline_ms": 500}, 5),
        ({"Prefer": "wait=999999999999"}, {"deadline_ms": 500}, 5),
        ({"Prefer": "wait=1", "Accept": "text/event-stream"}, {}, 10),
    ],
)
def test_a_wait_alone_is_a_deadline_and_the_nearer_one_counts(headers, params, most_steps):
    clock = FakeClock(monotonic_ns=1_000_000_000)
    with serve(clock, SlowPlugin(clock)) as service:
        reply = post_vector(service.client, headers=headers, params=params | {"eps": 0})
    assert reply.status_code == 200
    assert reply.headers["Preference-Applied"] == headers["Prefer"]
    if "Accept" in headers:
        assert '"halt_reason": "timeout"' in reply.text
    else:
        assert reply.json()["halt_reason"] == "timeout"
        assert most_steps - 3 <= reply.json()["steps"] <= most_steps


@pytest.mark.parametrize("prefer", ["wait=0", "wait=soon", "handling=lenient"])
def test_what_is_no_wait_is_ignored(service, prefer):
    reply = post_vector(service.client, headers={"Prefer": prefer})
    assert (reply.status_code, reply.json()["halt_reason"]) == (200, "slope<eps")
    assert "Preference-Applied" not in reply.headers


def test_with_respond_async_a_wait_is_how_long_to_wait_for_200(gated):
    service, gate = gated
    prefer = {"Prefer": "respond-async, wait=1"}
    done = post_vector(service.client, headers=prefer)
    assert (done.status_code, done.headers["Preference-Applied"]) == (200, "wait=1")
    gate.close()
    late = post_vector(service.client, headers=prefer)
    assert (late.status_code, late.headers["Preference-Applied"]) == (202, "respond-async, wait=1")
    gate.open()
    assert final(service, late.headers["Location"]).json()["halt_reason"] == "slope<eps"


def test_a_bad_frame_is_refused_at_once(service):
    array = np.ones(7, np.float32)
    reply = service.client.post(
        "/v1/refine/quadratic", content=array.tobytes(), headers=tensor_headers(array) | ASYNC
    )
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_shape")
