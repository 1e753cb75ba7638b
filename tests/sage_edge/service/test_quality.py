"""Measured quality comes in, and nothing else that looks like it."""

from __future__ import annotations

import pytest

from sage_edge.errors import UnknownRequestError

URL = "/v1/quality"
REPORT = {"request_id": "r1", "quality": 0.75, "source": "label"}


@pytest.fixture
def reported(service, monkeypatch):
    """What the orchestrator was told."""
    told = []

    def report_quality(request_id, quality, *, source, outcome=None, inputs=None):
        if request_id == "unknown":
            raise UnknownRequestError("request 'unknown': unknown, or its answer has expired")
        told.append((request_id, quality, source, outcome, inputs))
        return {"plugin": "vision", "trust_weight": {"from": 0.5, "to": 0.502}}

    monkeypatch.setattr(service.hrm, "report_quality", report_quality, raising=False)
    return told


def test_a_quality_reaches_the_orchestrator_and_what_it_changed_the_caller(service, reported):
    reply = service.client.post(URL, json=REPORT)
    assert reply.status_code == 200
    assert reply.json() == {"plugin": "vision", "trust_weight": {"from": 0.5, "to": 0.502}}
    assert reported == [("r1", 0.75, "label", None, None)]


def test_an_outcome_and_what_the_answer_was_worth_go_with_it(service, reported):
    worth = {
        "satisfaction": 0.5,
        "verified_claims": 3,
        "total_claims": 4,
        "witness_confidence": 1,
        "value_transferred": True,
    }
    report = REPORT | worth | {"source": "audit", "outcome": "novel_success"}
    assert service.client.post(URL, json=report).status_code == 200
    assert reported == [("r1", 0.75, "audit", "novel_success", worth)]


def test_an_answer_that_nobody_remembers_is_404(service, reported):
    reply = service.client.post(URL, json=REPORT | {"request_id": "unknown"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_request")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quality": -0.1}, "quality: "),
        ({"quality": 1.1}, "quality: "),
        ({"quality": "good"}, "quality: "),
        ({"quality": True}, "quality: "),
        ({"quality": None}, "quality: "),
        ({"source": "convergence"}, "source: "),
        ({"request_id": ""}, "request_id: "),
        ({"request_id": 5}, "request_id: "),
        ({"request_id": "x" * 129}, "request_id: "),
        ({"satisfaction": 2}, "satisfaction: "),
        ({"total_claims": -1}, "total_claims: "),
        ({"total_claims": 1.5}, "total_claims: "),
        ({"witness_confidence": 2}, "witness_confidence: "),
        ({"value_transferred": 1}, "value_transferred: "),
        ({"mood": 1}, "mood: unknown parameter"),
    ],
)
def test_what_is_no_quality_is_refused_by_name(service, reported, changes, words):
    reply = service.client.post(URL, json=REPORT | changes)
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_parameter")
    assert reply.json()["error"]["message"].startswith(words)
    assert reported == []


@pytest.mark.parametrize("missing", REPORT)
def test_nothing_that_is_needed_may_be_missing(service, reported, missing):
    reply = service.client.post(URL, json={k: v for k, v in REPORT.items() if k != missing})
    assert reply.status_code == 422
    assert reply.json()["error"]["message"].startswith(f"{missing}: field required")


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", {"Content-Type": "application/json"}, 422, "bad_input"),
        (b"", {"Content-Type": "application/json"}, 422, "bad_input"),
        (b"[]", {"Content-Type": "application/json"}, 422, "bad_parameter"),
        (b'{"quality": NaN}', {"Content-Type": "application/json"}, 422, "bad_parameter"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b" " * (9 << 20), {"Content-Type": "application/json"}, 413, "frame_too_large"),
    ],
)
def test_a_body_that_is_no_report_is_refused(service, reported, content, headers, status, code):
    reply = service.client.post(URL, content=content, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
