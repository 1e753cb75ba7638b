"""Measured quality comes in, and nothing else that looks like it."""

from __future__ import annotations

import pytest

from tests.wire import post_vector

URL = "/v1/quality"
REPORT = {"request_id": "r1", "quality": 0.75, "source": "label"}


def report(service, **changes):
    """Report on an answer that was just given."""
    request_id = post_vector(service.client).json()["request_id"]
    return service.client.post(URL, json=REPORT | {"request_id": request_id} | changes)


def test_a_quality_moves_the_trust_in_the_plugin_and_says_from_where_to_where(service):
    trust = report(service).json()
    assert (trust["quality"], trust["quality_source"], trust["outcome_class"]) == (0.75, "label", None)
    for side, rate in {"talent": 1.0, "training": 0.8, "temperament": 0.6}.items():
        moved = trust["t3"][side]
        assert moved["to"] - moved["from"] == pytest.approx(moved["change"])
        # The n-th similar action weighs 0.8 ** (n - 1), at the least 0.1.
        weight = max(0.8 ** (trust["repetition_n"] - 1), 0.1)
        assert moved["change"] == pytest.approx(rate * 0.02 * 0.25 * weight, rel=1e-3)
    assert trust["weight_after"] > trust["weight_before"]
    again = report(service).json()
    assert again["weight_before"] == trust["weight_after"]


def test_an_outcome_and_what_the_answer_was_worth_go_with_it(service):
    worth = {
        "satisfaction": 0.5,
        "verified_claims": 3,
        "total_claims": 4,
        "witness_confidence": 1.0,
        "value_transferred": True,
    }
    trust = report(service, source="audit", outcome="novel_success", **worth).json()
    assert (trust["quality_source"], trust["outcome_class"]) == ("audit", "novel_success")
    assert {name: trust["v3"][name] for name in worth} == worth


def test_a_quality_is_reported_once_for_each_answer(service):
    trust = report(service).json()
    again = service.client.post(URL, json=REPORT | {"request_id": trust["request_id"]})
    assert (again.status_code, again.json()["error"]["code"]) == (404, "unknown_request")


def test_a_report_that_is_refused_may_be_mended(service):
    request_id = post_vector(service.client).json()["request_id"]
    some = service.client.post(URL, json=REPORT | {"request_id": request_id, "satisfaction": 1})
    assert (some.status_code, some.json()["error"]["code"]) == (422, "bad_parameter")
    assert "total_claims" in some.json()["error"]["message"]
    assert service.client.post(URL, json=REPORT | {"request_id": request_id}).status_code == 200


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
        ({"outcome": "luck"}, "outcome: "),
        ({"satisfaction": 2}, "satisfaction: "),
        ({"total_claims": -1}, "total_claims: "),
        ({"total_claims": 1.5}, "total_claims: "),
        ({"witness_confidence": 2}, "witness_confidence: "),
        ({"value_transferred": 1}, "value_transferred: "),
        ({"mood": 1}, "mood: unknown parameter"),
    ],
)
def test_what_is_no_quality_is_refused_by_name(service, changes, words):
    reply = service.client.post(URL, json=REPORT | changes)
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_parameter")
    assert reply.json()["error"]["message"].startswith(words)


@pytest.mark.parametrize("missing", REPORT)
def test_nothing_that_is_needed_may_be_missing(service, missing):
    reply = service.client.post(URL, json={k: v for k, v in REPORT.items() if k != missing})
    assert reply.status_code == 422
    assert reply.json()["error"]["message"].startswith(f"{missing}: field required")


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", {"Content-Type": "application/json"}, 422, "bad_input"),
        (b"", {"Content-Type": "application/json"}, 422, "bad_input"),
        (b"[]", {"Content-Type": "application/json"}, 422, "bad_parameter"),
        (b'{"quality": NaN}', {"Content-Type": "application/json"}, 422, "bad_input"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b" " * (9 << 20), {"Content-Type": "application/json"}, 413, "frame_too_large"),
    ],
)
def test_a_body_that_is_no_report_is_refused(service, content, headers, status, code):
    reply = service.client.post(URL, content=content, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
