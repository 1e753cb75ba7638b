from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sage_edge import native
from sage_edge.telemetry import (
    FILE_NAME,
    Chain,
    Checkpoints,
    Drain,
    Event,
    Events,
    Hub,
    Journal,
    Metrics,
    RunDirectory,
    TelemetryValidator,
    load_schema,
    to_line,
    validate_file,
)
from tests.fakes import FakeClock, FakeReader
from tests.sage_edge.telemetry.samples import EVENTS, ORIN, REWOUND, START_NS, raw_run, run_info

GOLDEN = Path(__file__).parents[2] / "golden" / "v1_4" / "run_of_3_steps.jsonl"
VALIDATOR = TelemetryValidator(load_schema())


class Room:
    """A drain with everything around it; runs 1, 2 and 3 are open."""

    def __init__(self, *readers, journal=None, info=None, checkpoints=None, events=10, board=None):
        self.clock = FakeClock(monotonic_ns=START_NS)
        self.hub, self.metrics, self.directory = Hub(10_000), Metrics(), RunDirectory()
        for run_id in (1, 2, 3):
            self.directory.open(run_id, info or run_info(request_id=f"request-{run_id}"))
        self.events = Events(events)
        self.drain = Drain(
            readers,
            events=self.events,
            directory=self.directory,
            validator=VALIDATOR,
            journal=journal,
            chain=Chain(journal, checkpoints),
            hub=self.hub,
            metrics=self.metrics,
            clock=self.clock,
            entity_id="robot-7",
            look_at_board=lambda: board,
        )

    @property
    def records(self):
        return self.hub.after(-1, 10_000)[0]

    def count(self, name, **labels):
        text = self.metrics.exposition().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        raise KeyError(name)


def open_journal(directory):
    return Journal(directory, max_bytes=1 << 20, backups=1, clock=FakeClock())


def test_a_run_of_three_steps_is_written_as_the_golden_file_says(tmp_path):
    journal = open_journal(tmp_path)
    room = Room(FakeReader([raw_run([2.0, 1.5, 1.25, 1.25])]), journal=journal, board=ORIN)
    room.directory.annotate(1, 3, {"tiles": 4, "order": "entropy", "gains": [0.5, None]})
    assert room.drain.drain_once(0.0) == 4
    journal.close()
    assert (tmp_path / FILE_NAME).read_text() == GOLDEN.read_text()
    assert [to_line(record) for record in room.records] == GOLDEN.read_text().splitlines()


def test_golden_records_of_every_version_are_valid_and_tell_one_run():
    for path in GOLDEN.parents[1].glob("v*/*.jsonl"):
        report = validate_file(path, VALIDATOR)
        assert report.records > 0
        assert report.invalid == []
    records = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    assert [record["step_idx"] for record in records] == [0, 1, 2, 3]
    assert [record["E"] for record in records] == [2.0, 1.5, 1.25, 1.25]
    assert [record["budget"]["ATP_spent"] for record in records] == [3.7575, 7.515, 11.2725, 15.03]
    final = records[-1]
    assert [record["extra"] for record in records[:-1]] == [None] * 3
    assert final["extra"] == {"tiles": 4, "order": "entropy", "gains": [0.5, None]}
    assert final["trust"]["monotonicity_ratio"] == float(np.float32(2 / 3))
    assert final["trust"]["convergence_rate"] == 0.25
    assert final["trust"]["dE_variance"] == float(np.float32(np.var([-0.5, -0.25, 0.0])))
    assert (final["halt_reason"], final["steps"]) == ("slope<eps", 3)
    assert [record["board"] for record in records[:-1]] == [None] * 3
    assert final["board"] == {"power_mode": "15W", "temp_C": 52.75, "throttled": False}


def test_the_final_record_closes_its_run_and_no_other():
    room = Room(FakeReader([raw_run([2.0], run_id=1), raw_run([2.0], run_id=2, halt_reason=None)]))
    room.drain.drain_once(0.0)
    room.drain.drain_once(0.0)
    assert [room.directory.get(run_id) is None for run_id in (1, 2, 3)] == [True, False, False]
    assert room.count("sage_halts_total", plugin="vision", halt_reason="slope<eps") == 1


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), max_size=8), st.integers(1, 2))
def test_records_of_a_run_keep_their_order_whatever_is_in_between(chunks, readers):
    steps = {1: 0, 2: 0, 3: 0}
    batches = [[] for _ in range(readers)]
    for run_id, count in chunks:  # a run lives in one mailbox
        raws = raw_run([2.0] * (steps[run_id] + count), run_id=run_id, halt_reason=None)[steps[run_id] :]
        steps[run_id] += count
        batches[run_id % readers].append(raws)
    room = Room(*[FakeReader(batch) for batch in batches])
    while room.drain.drain_once(0.0):
        pass
    records = room.records
    assert [record["seq"] for record in records] == list(range(sum(steps.values())))
    for run_id, count in steps.items():
        assert [r["step_idx"] for r in records if r["run_id"] == run_id] == list(range(count))


def test_what_the_mailbox_lost_is_counted_and_leaves_a_gap_as_wide_in_the_numbers():
    batches = [
        raw_run([2.0, 1.5], halt_reason=None),
        (5, raw_run([1.0], halt_reason=None)),
        (2, raw_run([0.5])[:0]),
    ]
    room = Room(FakeReader(batches))
    while room.drain.drain_once(0.0):
        pass
    assert [record["seq"] for record in room.records] == [0, 1, 7]
    assert room.count("sage_telemetry_lost_total", stage="mailbox") == 7
    assert room.count("sage_telemetry_records_total", kind="step") == 3


def test_a_record_that_fails_the_schema_is_counted_said_once_and_never_written(tmp_path, caplog):
    journal = open_journal(tmp_path)
    raws = raw_run([2.0, 1.5, 1.25])
    raws["monotonicity_ratio"][:2] = 1.5, 2.5
    room = Room(FakeReader([raws]), journal=journal)
    room.drain.drain_once(0.0)
    journal.close()
    assert [record["seq"] for record in room.records] == [2]
    assert (tmp_path / FILE_NAME).read_text().count("\n") == 1
    assert room.count("sage_telemetry_lost_total", stage="schema") == 2
    assert caplog.text.count("monotonicity_ratio") == caplog.text.count("telemetry_record_refused") == 1


def test_records_of_an_unknown_run_are_counted_and_said_once(caplog):
    room = Room(FakeReader([raw_run([2.0, 1.5], run_id=99)]))
    assert room.drain.drain_once(0.0) == 2
    assert room.records == []
    assert room.count("sage_telemetry_lost_total", stage="directory") == 2
    assert caplog.text.count("telemetry_record_refused") == 1


def test_numbers_go_on_where_the_journal_ended(tmp_path):
    for expected in ([0, 1], [2, 3]):
        journal = open_journal(tmp_path)
        room = Room(FakeReader([raw_run([2.0, 1.5])]), journal=journal)
        room.drain.drain_once(0.0)
        journal.close()
        assert [record["seq"] for record in room.records] == expected


def test_what_the_journal_cannot_write_is_counted_and_still_published(tmp_path):
    (tmp_path / FILE_NAME).symlink_to("/dev/full")
    journal = open_journal(tmp_path)
    room = Room(FakeReader([raw_run([2.0, 1.5]), raw_run([2.0], run_id=2)]), journal=journal)
    room.drain.drain_once(0.0)
    room.drain.drain_once(0.0)
    journal.close()
    assert len(room.records) == 3
    assert room.count("sage_telemetry_lost_total", stage="journal") == 3


@pytest.mark.parametrize("is_rewound", [True, False])
def test_changes_that_are_no_numbers_are_not_counted_whatever_comes_after(is_rewound):
    raws = raw_run([2.0, 1.5, np.nan, 1.25, 1.0])
    raws["dE_variance"] = 0.0  # the core's leaves out what is no number
    if is_rewound:  # states 0 to 2, then back to state 1, then two more steps
        rewound = raws[2:3].copy()
        rewound["E"], rewound["dE"], rewound["flags"] = 1.5, 0.0, REWOUND
        raws = np.concatenate([raws[:3], rewound, raws[3:]])
        raws["dE"][-2:] = -0.25
    room = Room(FakeReader([raws]))
    room.drain.drain_once(0.0)
    counts = [record["trust"]["n_dE"] for record in room.records]
    assert counts == ([0, 1, 1, 1, 2, 3] if is_rewound else [0, 1, 1, 1, 2])
    assert [record["rewound_from"] for record in room.records].count(2) == is_rewound


def test_events_are_numbered_with_the_steps_and_what_was_refused_leaves_a_gap(tmp_path):
    journal = open_journal(tmp_path)
    room = Room(FakeReader([raw_run([2.0, 1.5])]), journal=journal, events=2)
    for _ in range(5):
        room.events.put(Event("ledger", EVENTS["ledger"], START_NS))
    assert room.drain.drain_once(0.0) == 4
    journal.close()
    assert [(record["seq"], record["kind"]) for record in room.records] == [
        (0, "ledger"),
        (1, "ledger"),
        (5, "step"),
        (6, "step"),
    ]
    assert room.count("sage_telemetry_lost_total", stage="events") == 3
    assert room.count("sage_telemetry_records_total", kind="ledger") == 2


def test_an_event_is_signed_for_by_the_entity_and_the_orchestrator_unless_it_names_a_role():
    room = Room(FakeReader())
    for kind in ("ledger", "trust"):
        room.events.put(Event(kind, EVENTS[kind], START_NS + 7))
    room.drain.drain_once(0.0)
    assert [(r["entity_id"], r["role"]) for r in room.records] == [("robot-7", "H"), ("robot-7", "vision")]
    assert [r["ts_mono_ns"] for r in room.records] == [START_NS + 7] * 2


@pytest.mark.parametrize("change", [{"scene_id": 5}, {"more": 1}, {"scene_id": "\ud800"}], ids=str)
def test_an_event_that_has_no_record_is_counted_and_said(change, caplog):
    room = Room(FakeReader())
    for fields in (EVENTS["ledger"] | change, EVENTS["ledger"]):
        room.events.put(Event("ledger", fields, 0))
    room.drain.drain_once(0.0)
    assert [record["seq"] for record in room.records] == [1]
    assert room.count("sage_telemetry_lost_total", stage="schema") == 1
    assert caplog.text.count("telemetry_record_refused") == 1


def test_events_of_every_kind_are_written_as_the_golden_file_says(tmp_path):
    journal = open_journal(tmp_path)
    room = Room(FakeReader(), journal=journal)
    for kind, fields in EVENTS.items():
        room.events.put(Event(kind, fields, START_NS))
    room.drain.drain_once(0.0)
    journal.close()
    assert (tmp_path / FILE_NAME).read_text() == GOLDEN.with_name("events.jsonl").read_text()


def test_a_checkpoint_follows_so_many_records(tmp_path):
    journal = open_journal(tmp_path)
    checkpoints = Checkpoints(tmp_path, key_file=None, every=4)
    batches = [raw_run([2.0, 1.5], halt_reason=None) for _ in range(5)]
    room = Room(FakeReader(batches), journal=journal, checkpoints=checkpoints)
    while room.drain.drain_once(0.0):
        pass
    journal.close()
    steps, sign = ["step"] * 4, ["checkpoint"]
    assert [record["kind"] for record in room.records] == [*steps, *sign, *steps, *sign, *steps[:2]]
    assert checkpoints.head["signed_hash"] == room.records[9]["record_hash"]


def test_unix_time_follows_the_system_clock_when_that_is_set():
    room = Room(FakeReader([raw_run([2.0], run_id=1), raw_run([2.0], run_id=2)]))
    room.drain.drain_once(0.0)
    offset_ns = room.clock.unix_ns() - room.clock.monotonic_ns()
    room.clock._unix_ns += 3_600_000_000_000  # the system learns the time of day
    room.drain.drain_once(0.0)
    assert [r["ts_unix_ns"] - r["ts_mono_ns"] - offset_ns for r in room.records] == [0, 3_600_000_000_000]


def test_mailboxes_share_the_waiting_time_when_all_are_empty():
    readers = FakeReader(), FakeReader([raw_run([2.0])]), FakeReader()
    room = Room(*readers)
    assert room.drain.drain_once(0.3) == 1
    assert [reader.timeouts_s for reader in readers] == [[0.0]] * 3, "nobody waits beside a full mailbox"
    assert room.drain.drain_once(0.3) == 0
    assert [reader.timeouts_s[1:] for reader in readers] == [[0.0, pytest.approx(0.1)]] * 3


def test_stopping_drains_what_is_left():
    reader = FakeReader([raw_run([2.0, 1.5], halt_reason=None) for _ in range(50)])
    room = Room(reader)
    room.drain.start()
    room.drain.stop()
    assert len(room.records) == 100


def test_stopping_makes_sure_against_a_power_cut(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(os.fstat(number).st_size))
    journal = open_journal(tmp_path)
    room = Room(FakeReader([raw_run([2.0, 1.5])]), journal=journal)
    room.drain.start()
    room.drain.stop()
    assert flushed == [(tmp_path / FILE_NAME).stat().st_size]
    journal.close()


def test_a_drain_that_never_started_can_be_stopped():
    room = Room(FakeReader())
    room.drain.stop()
    assert room.records == []


def test_the_thread_survives_a_failure_and_says_so(caplog):
    class FailingReader(FakeReader):
        failed = threading.Event()

        def wait(self, max_records, timeout_s):
            try:
                return super().wait(max_records, timeout_s)
            except RuntimeError:
                self.failed.set()
                raise

    reader = FailingReader([RuntimeError("broken"), raw_run([2.0])])
    room = Room(reader)
    room.drain.start()
    assert reader.failed.wait(10)
    room.drain.stop()
    assert len(room.records) == 1
    assert caplog.text.count("telemetry_drain_failed") == 1


@given(st.lists(st.integers(0, 40), max_size=12))
def test_with_a_real_mailbox_every_record_is_published_or_counted_as_lost(bursts):
    ring = native.Ring(16)
    room = Room(native.RingReader(ring), info=run_info())
    written = 0
    for burst in bursts:
        if burst:
            ring.push_many(raw_run([2.0] * burst, halt_reason=None))
        written += burst
        room.drain.drain_once(0.0)
    while room.drain.drain_once(0.0):
        pass
    assert len(room.records) + room.count("sage_telemetry_lost_total", stage="mailbox") == written
    assert ring.published == written
    if room.records:
        assert room.records[-1]["seq"] == written - 1
