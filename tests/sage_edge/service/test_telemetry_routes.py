"""Telemetry over HTTP: as lines, as events, its schema, and the metrics."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from sage_edge import Settings
from sage_edge.config import shared_file
from sage_edge.service import sse
from tests.quadratic import QuadraticPlugin
from tests.sage_edge.service.conftest import Service
from tests.wire import post_vector, tensor_headers

STEPS = 5


@pytest.fixture
def alone(gated):
    """A service whose records are all of the test's own making."""
    service, _ = gated
    return service


def records_of(reply):
    assert reply.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in reply.text.splitlines()]


def run(service):
    """One run of STEPS steps, whose records have been drained: STEPS + 1 steps, and those of the ledger."""
    answer = post_vector(service.client, params={"max_steps": STEPS, "eps": 0}).json()
    hub = service.hrm.telemetry.hub

    def is_drained():
        own = [record for record in hub.after(-1, 1 << 20)[0] if record.get("scene_id") == answer["scene_id"]]
        is_settled = any(record["kind"] == "ledger" and record["operation"] == "settle" for record in own)
        return is_settled and len(steps_in(own)) == STEPS + 1

    service.wait_for(is_drained)
    return answer["request_id"]


def steps_in(records):
    return [record for record in records if record["kind"] == "step"]


def last_seq(service):
    records, _ = service.hrm.telemetry.hub.after(-1, 1 << 20)
    return records[-1]["seq"] if records else -1


def read_all(service, after, limit):
    found = []
    while True:
        reply = service.client.get("/v1/telemetry", params={"after": after, "limit": limit})
        assert reply.headers["Sage-Telemetry-Missed"] == "0"
        page = records_of(reply)
        assert len(page) <= limit
        if not page:
            assert reply.headers["Sage-Telemetry-Last"] == str(after)
            return found
        found += page
        after = int(reply.headers["Sage-Telemetry-Last"])
        assert after == page[-1]["seq"]


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
def test_pages_of_any_size_hold_every_record_once_and_in_order(alone, limit):
    start = last_seq(alone)
    names = [run(alone) for _ in range(3)]
    records = read_all(alone, start, limit)
    assert [record["seq"] for record in records] == list(range(start + 1, start + 1 + len(records)))
    steps = steps_in(records)
    assert [record["request_id"] for record in steps] == [name for name in names for _ in range(STEPS + 1)]
    assert [record["step_idx"] for record in steps] == list(range(STEPS + 1)) * 3


def test_records_that_memory_no_longer_holds_are_counted_as_missed(alone):
    run(alone)
    hub = alone.hrm.telemetry.hub
    with hub._lock:
        first = hub._records[0]["seq"]
        del hub._records[0], hub._records[0]
    reply = alone.client.get("/v1/telemetry", params={"after": -1, "limit": 3})
    assert [record["seq"] for record in records_of(reply)] == [first + 2, first + 3, first + 4]
    assert reply.headers["Sage-Telemetry-Missed"] == "2"


def plugins_of(records):
    return {record["plugin"] for record in steps_in(records)}


def test_every_record_is_valid_under_the_schema_that_is_served(service, nuclei_bytes):
    start = last_seq(service)
    run(service)
    service.client.post("/v1/refine/vision?atp=500&deadline_ms=5000&quality=0.9", content=nuclei_bytes)
    hub = service.hrm.telemetry.hub
    service.wait_for(lambda: "vision" in plugins_of(hub.after(start, 1 << 20)[0]))
    reply = service.client.get("/v1/telemetry/schema")
    assert reply.headers["content-type"] == "application/schema+json"
    schema = reply.json()
    assert schema == json.loads(shared_file("schemas/telemetry.schema.json").read_text())
    validator = Draft202012Validator(schema)
    records = read_all(service, start, 1000)
    assert plugins_of(records) == {"quadratic", "vision"}
    assert {"step", "ledger", "allocation"} <= {record["kind"] for record in records}
    for record in records:
        assert list(validator.iter_errors(record)) == []


def events_of(stream):
    """(id, name, data) of each event."""
    fields = {}
    for line in stream.iter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields.get("id"), fields["event"], json.loads(fields["data"])
            fields = {}


def take(count, events):
    return [next(events) for _ in range(count)]


def test_a_stream_resumes_behind_the_last_event_and_goes_on_live(alone):
    start = last_seq(alone)
    run(alone)
    headers = {"Last-Event-ID": str(start + 2)}
    with alone.client.stream("GET", "/v1/telemetry/stream", headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = events_of(stream)
        replayed = take(STEPS - 1, events)
        run(alone)
        live = take(STEPS + 1, events)
    ids = [int(number) for number, _, _ in replayed + live]
    assert ids == list(range(start + 3, start + 1 + 2 * (STEPS + 1)))
    assert {name for _, name, _ in replayed + live} == {"record"}
    assert [data["seq"] for _, _, data in replayed + live] == ids


def test_a_stream_without_a_place_begins_now(alone):
    run(alone)
    with alone.client.stream("GET", "/v1/telemetry/stream") as stream:
        lines = stream.iter_raw()
        assert next(lines) == b": connected\n\n"
        start = last_seq(alone)
        run(alone)
        assert f"id: {start + 1}\n".encode() in next(lines)


def test_a_stream_that_resumes_too_late_says_how_many_it_missed(alone):
    run(alone)
    hub = alone.hrm.telemetry.hub
    with hub._lock:
        del hub._records[0], hub._records[0]
        kept = [record["seq"] for record in hub._records]
    with alone.client.stream("GET", "/v1/telemetry/stream", params={"after": -1}) as stream:
        events = take(len(kept) + 1, events_of(stream))
    assert [data["seq"] for _, name, data in events if name == "record"] == kept
    assert [data for _, name, data in events if name == "dropped"] == [{"records": 2}]


@pytest.mark.parametrize(
    "folders", [("", ""), ("old", "new"), ("", "new")], ids=["none", "new folder", "first folder"]
)
@pytest.mark.parametrize("lives", [(1, 1), (3, 1), (1, 3)], ids=str)
def test_after_a_restart_a_number_of_the_chain_before_hides_nothing(tmp_path, folders, lives):
    def life(folder, runs):
        settings = Settings(slots=1, threads=1, telemetry_dir=folder and str(tmp_path / folder))
        return Service({"quadratic": QuadraticPlugin()}, settings), runs

    first, runs = life(folders[0], lives[0])
    with first as service:
        for _ in range(runs):
            run(service)
        seen = last_seq(service)
    second, runs = life(folders[1], lives[1])
    with second as service:
        for _ in range(runs):
            run(service)
        reply = service.client.get("/v1/telemetry", params={"after": seen, "limit": 10_000})
        everything = service.client.get("/v1/telemetry", params={"limit": 10_000})
        assert reply.text == everything.text != ""
        assert (reply.headers["Sage-Telemetry-Reset"], reply.headers["Sage-Telemetry-Missed"]) == ("1", "0")
        assert "Sage-Telemetry-Reset" not in everything.headers
        records = records_of(reply)
        assert len(steps_in(records)) == runs * (STEPS + 1)
        with service.client.stream(
            "GET", "/v1/telemetry/stream", headers={"Last-Event-ID": str(seen)}
        ) as stream:
            (_, name, data), *events = take(len(records) + 1, events_of(stream))
        assert (name, data) == ("reset", {"last_event_id": seen})
        assert [event[2] for event in events] == records


def test_after_a_restart_on_the_same_folder_a_number_is_as_good_as_before(tmp_path):
    settings = Settings(slots=1, threads=1, telemetry_dir=str(tmp_path))
    with Service({"quadratic": QuadraticPlugin()}, settings) as service:
        run(service)
        seen = last_seq(service)
    with Service({"quadratic": QuadraticPlugin()}, settings) as service:
        run(service)
        reply = service.client.get("/v1/telemetry", params={"after": seen})
        assert "Sage-Telemetry-Reset" not in reply.headers
        assert len(steps_in(records_of(reply))) == STEPS + 1
        assert records_of(reply)[0]["seq"] > seen


def test_a_listener_that_goes_away_is_forgotten(alone):
    subscriptions = alone.hrm.telemetry.hub._subscriptions
    alone.wait_for(lambda: not subscriptions)
    with alone.client.stream("GET", "/v1/telemetry/stream") as stream:
        lines = stream.iter_raw()  # httpx hangs up when this is dropped
        next(lines)
        alone.wait_for(lambda: len(subscriptions) == 1)
    alone.wait_for(lambda: not subscriptions)


def test_a_silent_stream_says_that_it_is_there_and_is_not_cached(alone, monkeypatch):
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.05)
    with alone.client.stream("GET", "/v1/telemetry/stream") as stream:
        assert stream.headers["cache-control"] == "no-store"
        lines = (line for line in stream.iter_lines() if line)
        assert next(lines) == ": connected"
        assert take(3, lines) == [": still here"] * 3
        start = last_seq(alone)
        run(alone)
        assert next(line for line in lines if not line.startswith(":")) == f"id: {start + 1}"


def test_the_stream_of_a_request_that_takes_its_time_says_that_it_is_there(gated, monkeypatch):
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.05)
    service, gate = gated
    gate.close()
    body = np.full(6, 4, np.float32)
    headers = tensor_headers(body) | {"Accept": "text/event-stream"}
    with service.client.stream(
        "POST", "/v1/refine/quadratic", content=body.tobytes(), headers=headers
    ) as stream:
        lines = (line for line in stream.iter_lines() if line)
        assert [line for line in take(8, lines) if line.startswith(":")][-2:] == [": still here"] * 2
        gate.open()
        assert "event: result" in list(lines)


def test_a_stream_that_the_service_ends_says_so(tmp_path):
    settings = Settings(slots=1, threads=1, telemetry_dir="")
    with (
        Service({"quadratic": QuadraticPlugin()}, settings) as service,
        service.client.stream("GET", "/v1/telemetry/stream") as stream,
    ):
        chunks = stream.iter_raw()
        next(chunks)
        service.hrm.telemetry.hub.close()
        assert list(chunks) == [b'event: end\ndata: {"reason": "draining"}\n\n']


def test_a_refused_event_stream_leaves_no_listener_behind(alone):
    subscriptions = alone.hrm.telemetry.hub._subscriptions
    alone.wait_for(lambda: not subscriptions)
    headers = {"Accept": "text/event-stream"}
    assert post_vector(alone.client, headers=headers, params={"max_steps": 10**6}).status_code == 422
    assert subscriptions == []


def test_the_head_of_the_audit_chain_is_the_newest_one_that_was_signed(tmp_path):
    settings = Settings(slots=1, threads=1, telemetry_dir=str(tmp_path), audit_every=4)
    with Service({"quadratic": QuadraticPlugin()}, settings) as service:
        run(service)
        service.wait_for(lambda: service.client.get("/v1/audit/head").status_code == 200)
        head = service.client.get("/v1/audit/head").json()
        signed = next(r for r in read_all(service, -1, 1000) if r["seq"] == head["signed_seq"])
    assert head["signed_hash"] == signed["record_hash"]


def test_where_nothing_is_signed_there_is_no_head(service):
    reply = service.client.get("/v1/audit/head")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    assert "telemetry_dir" in reply.json()["error"]["message"]


def metrics_of(service):
    reply = service.client.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


def test_the_metrics_count_what_was_served(alone):
    plugin = ("plugin", "quadratic")
    run(alone)
    before = metrics_of(alone)
    for _ in range(3):
        run(alone)
    after = metrics_of(alone)

    def grown(name, *labels):
        key = (name, *sorted(labels))
        return after[key] - before[key]

    assert grown("sage_requests_total", plugin, ("outcome", "answered")) == 3
    assert grown("sage_halts_total", plugin, ("halt_reason", "max_steps")) == 3
    assert grown("sage_refine_steps_total", plugin) == 3 * STEPS
    assert grown("sage_steps_to_halt_bucket", plugin, ("le", f"{STEPS}.0")) == 3
    assert grown("sage_request_duration_seconds_count", plugin) == 3
    assert grown("sage_telemetry_records_total", ("kind", "step")) == 3 * (STEPS + 1)
    for stage in ("mailbox", "directory", "schema", "journal"):
        assert after[("sage_telemetry_lost_total", ("stage", stage))] == 0
    assert after[("sage_slots", plugin)] == 1


def test_a_refusal_is_counted_by_its_reason(alone):
    alone.hrm._served["quadratic"].room.close()
    post_vector(alone.client)
    assert metrics_of(alone)[("sage_shed_total", ("reason", "draining"))] == 1


def test_promtool_finds_nothing_to_mend(service):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool, which comes with Prometheus")
    page = service.client.get("/metrics").content
    checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
