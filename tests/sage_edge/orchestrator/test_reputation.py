from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge import Settings
from sage_edge.errors import ConfigError, ParameterError
from sage_edge.irp.lrc import LRC_PROFILES
from sage_edge.irp.reputation import V3
from sage_edge.orchestrator import reputation
from sage_edge.orchestrator.reputation import Reputation, open_reputation
from sage_edge.telemetry import Event, TelemetryValidator, load_schema
from sage_edge.telemetry.records import tell

NOW_NS = 1_800_000_000 * 10**9
HOUR_NS = 3600 * 10**9
MONTH_NS = 30 * 24 * HOUR_NS
VALUE = V3(3.0, 4.0, 1.0, 1, 1, 1.0, True)


def judge(ledger, quality, role="vision", now_ns=NOW_NS, **more):
    arguments = {"source": "label", "run_id": 1, "request_id": "r", "now_unix_ns": now_ns} | more
    return ledger.record(role, quality, **arguments)


@pytest.fixture
def memory():
    kept = Reputation(None)
    yield kept
    kept.close()


def test_a_role_that_nobody_judged_has_a_low_weight(memory):
    assert memory.weight("vision") == pytest.approx(0.3)


def test_a_good_run_raises_the_weight_of_its_role_and_no_other(memory):
    update = judge(memory, 1.0)
    assert memory.weight("vision") == update.after.weight == pytest.approx(0.3 + 0.4 * 0.01 + 0.3 * 0.014)
    assert memory.weight("control") == pytest.approx(0.3)
    assert memory.trust("vision") == pytest.approx((0.31, 0.308, 0.306))


def test_time_fades_training_and_heals_temperament(memory):
    judge(memory, 0.5)
    update = judge(memory, 0.5, now_ns=NOW_NS + 10 * MONTH_NS)
    assert update.idle_months == 10.0
    assert update.change == pytest.approx((0.0, -0.01, 0.1))


def test_a_clock_that_was_set_back_counts_no_time_twice(memory):
    judge(memory, 0.5)
    assert judge(memory, 0.5, now_ns=NOW_NS - MONTH_NS).idle_months == 0.0
    assert judge(memory, 0.5, now_ns=NOW_NS + MONTH_NS).idle_months == 1.0


def test_a_clock_that_jumps_from_1970_to_now_ages_no_trust(memory):
    judge(memory, 0.5, now_ns=90 * 10**9)
    assert judge(memory, 0.5).idle_months == 0.0
    assert judge(memory, 0.5, now_ns=NOW_NS + 2 * MONTH_NS).idle_months == 2.0


def test_similar_runs_within_an_hour_count_less_and_less(memory):
    numbers = [judge(memory, 1.0, now_ns=NOW_NS + n).repetition_n for n in range(3)]
    other_source = judge(memory, 1.0, source="audit", now_ns=NOW_NS + 3)
    other_outcome = judge(memory, 1.0, outcome="novel_success", now_ns=NOW_NS + 4)
    other_role = judge(memory, 1.0, role="control", now_ns=NOW_NS + 5)
    later = judge(memory, 1.0, now_ns=NOW_NS + 2 * HOUR_NS)
    assert numbers == [1, 2, 3]
    assert [u.repetition_n for u in (other_source, other_outcome, other_role, later)] == [1, 1, 1, 1]


def test_an_outcome_is_judged_by_its_table(memory):
    update = judge(memory, 0.9, outcome="unexpected_failure", v3_inputs=VALUE)
    assert update.change == (-0.02, -0.01, -0.02)
    assert update.fields()["rule_id"] == "t3-outcome-1"


def test_success_is_what_the_policy_asks_for():
    strict = Reputation(None, lrc=LRC_PROFILES["safety"])
    assert [judge(strict, quality).is_success for quality in (0.89, 0.9)] == [False, True]
    strict.close()


@given(st.floats(0, 1), st.sampled_from([None, "novel_success"]), st.sampled_from([None, VALUE]))
def test_every_update_is_a_valid_record(quality, outcome, value):
    kept = Reputation(None)
    fields = judge(kept, quality, outcome=outcome, v3_inputs=value).fields()
    kept.close()
    record = tell(Event("trust", fields, 0), entity_id="robot", seq=0, unix_offset_ns=0)
    assert TelemetryValidator(load_schema()).errors(record) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quality": 1.5}, "quality: expected 0 to 1, got 1.5"),
        ({"outcome": "luck"}, "outcome: expected one of"),
        ({"source": "convergence"}, "source: expected label or audit, got 'convergence'"),
    ],
    ids=str,
)
def test_what_cannot_be_judged_by_is_refused_and_changes_nothing(memory, change, words):
    with pytest.raises(ParameterError, match=words):
        judge(memory, **({"quality": 1.0} | change))
    assert memory.weight("vision") == pytest.approx(0.3)


def test_trust_outlives_the_process_per_entity(tmp_path):
    path = tmp_path / "new" / "reputation.sqlite"
    first = Reputation(path, entity_id="robot-7")
    judge(first, 1.0)
    first.close()
    again, other = Reputation(path, entity_id="robot-7"), Reputation(path, entity_id="robot-8")
    assert again.weight("vision") > other.weight("vision") == pytest.approx(0.3)
    assert judge(again, 1.0).update_n == 2
    again.close()
    other.close()


def test_history_is_kept_and_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(reputation, "HISTORY_UPDATES", 3)
    kept = Reputation(tmp_path / "reputation.sqlite")
    for number in range(5):
        judge(kept, 0.5, run_id=number)
    judge(kept, 0.5, role="control")
    kept.close()
    database = sqlite3.connect(tmp_path / "reputation.sqlite")
    rows = database.execute("SELECT role, update_n, run_id FROM history ORDER BY role, update_n").fetchall()
    database.close()
    assert rows == [("control", 1, 1), ("vision", 3, 2), ("vision", 4, 3), ("vision", 5, 4)]


def test_an_update_that_fails_half_way_never_happened(tmp_path):
    kept = Reputation(tmp_path / "reputation.sqlite")
    judge(kept, 1.0)
    database = sqlite3.connect(tmp_path / "reputation.sqlite")
    database.execute("DROP TABLE history")
    database.execute("CREATE TABLE history AS SELECT * FROM trust")  # too few columns
    database.close()
    before = kept.weight("vision")
    with pytest.raises(ConfigError, match="cannot be used"):
        judge(kept, 1.0)
    assert kept.weight("vision") == before
    kept.close()


def test_threads_lose_no_update(tmp_path):
    kept = Reputation(tmp_path / "reputation.sqlite")
    threads = [
        threading.Thread(target=lambda: [judge(kept, 1.0, source="audit") for _ in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert judge(kept, 1.0).update_n == 81
    kept.close()


_WRITER = """
import sys
from pathlib import Path
from sage_edge.orchestrator.reputation import Reputation

kept = Reputation(Path(sys.argv[1]))
for n in range(int(sys.argv[2])):
    kept.record("vision", 1.0, source="label", run_id=n, request_id="r", now_unix_ns=n)
    print(n, flush=True)
"""


def writer(path, count):
    command = [sys.executable, "-c", _WRITER, str(path), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def updates(path):
    """The last number, and whether history and trust agree on it."""
    kept = Reputation(path)
    number = judge(kept, 0.5).update_n - 1
    kept.close()
    database = sqlite3.connect(path)
    (count,) = database.execute("SELECT count(*) FROM history").fetchone()
    (sound,) = database.execute("PRAGMA integrity_check").fetchone()
    database.close()
    assert (count, sound) == (number + 1, "ok")
    return number


def test_two_processes_on_one_file_lose_nothing(tmp_path):
    path = tmp_path / "reputation.sqlite"
    writers = [writer(path, 100) for _ in range(2)]
    for process in writers:
        process.communicate()
        assert process.returncode == 0
    assert updates(path) == 200


def test_after_kill_9_every_update_that_was_reported_is_there(tmp_path):
    path = tmp_path / "reputation.sqlite"
    process = writer(path, 1_000_000)
    reported = [process.stdout.readline() for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    reported += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    whole = sum(line.endswith("\n") for line in reported)
    assert whole <= updates(path) <= whole + 1


def test_a_file_of_something_else_stops_the_start_and_stays_untouched(tmp_path):
    path = tmp_path / "reputation.sqlite"
    path.write_text("Dear diary, this is no database. " * 100)
    with pytest.raises(ConfigError, match=r"reputation_file: .*expected a reputation.*move it away"):
        Reputation(path)
    assert path.read_text().startswith("Dear diary")


def test_a_database_of_something_else_stops_the_start(tmp_path):
    database = sqlite3.connect(tmp_path / "other.sqlite")
    database.execute("CREATE TABLE mine (a)")
    database.close()
    with pytest.raises(ConfigError, match="expected a reputation, got: version 0"):
        Reputation(tmp_path / "other.sqlite")


def test_a_folder_that_cannot_be_stops_the_start(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"reputation_file: .*cannot be opened"):
        Reputation(tmp_path / "file" / "reputation.sqlite")


def test_the_settings_say_where_it_is_kept(tmp_path):
    named = Settings(reputation_file=str(tmp_path / "mine.sqlite"), telemetry_dir="", lrc_profile="safety")
    beside = Settings(telemetry_dir=str(tmp_path / "telemetry"))
    for settings, path in ((named, "mine.sqlite"), (beside, "telemetry/reputation.sqlite")):
        kept = open_reputation(settings)
        judge(kept, 1.0)
        kept.close()
        assert (tmp_path / path).exists()
        assert kept.lrc is LRC_PROFILES[settings.lrc_profile]


def test_without_a_folder_trust_is_kept_in_memory(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    open_reputation(Settings(telemetry_dir="")).close()
    assert list(tmp_path.iterdir()) == []
    assert caplog.text == ""
    (tmp_path / "file").touch()
    open_reputation(Settings(telemetry_dir="file")).close()
    assert caplog.text.count("reputation_not_kept") == 1


def damage(path):
    path.write_bytes(b"no database" * 1000)


def hold(path):
    Reputation(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    return other


@pytest.mark.parametrize("spoil", [damage, hold])
def test_a_file_beside_the_journal_that_cannot_be_used_costs_what_is_kept_and_no_more(
    tmp_path, monkeypatch, caplog, spoil
):
    path = tmp_path / "reputation.sqlite"
    other, content = spoil(path), path.read_bytes()
    monkeypatch.setattr("sage_edge.orchestrator.reputation._BUSY_MS", 1)
    reputation = open_reputation(Settings(telemetry_dir=str(tmp_path)))
    assert not reputation.is_kept
    assert judge(reputation, 1.0).update_n == 1
    assert caplog.text.count("reputation_not_kept") == 1
    assert path.read_bytes() == content
    with pytest.raises(ConfigError, match="reputation_file"):
        open_reputation(Settings(reputation_file=str(path), telemetry_dir=""))
    reputation.close()
    if other:
        other.close()
