"""The auditor against journals that were really written, and then tampered with."""

from __future__ import annotations

import json
import re
import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.config import Settings
from sage_edge.errors import ConfigError
from sage_edge.telemetry import FILE_NAME, Telemetry, TelemetryValidator, draft, load_schema, seal
from sage_edge.telemetry.audit import verify
from sage_edge.telemetry.checkpoints import HEAD_NAME
from sage_edge.telemetry.signing import SigningKey
from tests.fakes import FakeClock, FakeReader
from tests.sage_edge.telemetry.logs import RUN_UATP, Ledger, lines, write_log
from tests.sage_edge.telemetry.samples import START_NS, raw_run, run_info

GOLDEN = Path(__file__).parents[3] / "golden"
GOLDEN_1_0 = GOLDEN / "v1" / "run_of_3_steps.jsonl"
VALIDATOR = TelemetryValidator(load_schema())


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A journal of two lives, in one file."""
    directory = tmp_path_factory.mktemp("sound")
    write_log(directory, name="a")
    write_log(directory, name="b", scenes=3)
    return directory


@pytest.fixture
def copy(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "copy")


def audit(directory, **more):
    return verify(directory, validator=VALIDATOR, **more)


def text(directory):
    return list(audit(directory).lines())


def problems(directory, **more):
    return [str(finding).removeprefix(str(directory)) for finding in audit(directory, **more).findings]


def rewrite(directory, change, kind, number=0):
    """Change the n-th record of a kind, then forge the chain after it as one would who lacks the key.

    The checkpoints are left out and the head is made to match, so that only the books can tell.
    """
    records = [json.loads(line) for line in lines(directory)]
    chosen = [record for record in records if record["kind"] == kind][number]
    change(chosen)
    prev, written = "0" * 64, []
    for record in records:
        sealed = seal(draft(record), prev)
        written.append(sealed.line.decode())
        prev = sealed.record_hash
    (directory / FILE_NAME).write_text("\n".join(written) + "\n")
    return chosen["seq"]


def book_problems(directory):
    """What the books say, leaving out the signatures that a forged chain breaks."""
    return [
        finding for finding in audit(directory).findings if "sign" not in finding.problem and finding.line > 0
    ]


def test_a_sound_journal_has_no_findings_and_is_summed_up(sound):
    report = audit(sound)
    assert report.findings == []
    assert report.is_sound
    assert (report.records, report.unchained) == (len(lines(sound)), 0)
    assert (report.gaps, report.lost, report.unsigned, report.torn_bytes) == (0, 0, 0, 0)
    assert report.checkpoints >= 2
    assert (report.runs, report.cut_off) == (10, 0)
    assert report.spent_uatp == 10 * RUN_UATP


def test_the_file_and_its_folder_are_the_same_journal(sound):
    assert audit(sound / FILE_NAME).document() | {"path": ""} == audit(sound).document() | {"path": ""}


def test_rotated_files_are_one_chain_and_what_rotation_deleted_is_no_finding(tmp_path):
    for name in "abc":
        write_log(tmp_path, name=name, scenes=4, telemetry_max_bytes=8192, telemetry_backups=2)
    assert len(list(tmp_path.glob(f"{FILE_NAME}*"))) == 3
    assert json.loads(lines(tmp_path)[0])["seq"] > 0
    assert audit(tmp_path).findings == []


def test_without_backups_the_newest_file_alone_is_sound(tmp_path):
    write_log(tmp_path, scenes=6, telemetry_max_bytes=8192, telemetry_backups=0, audit_every=1000)
    assert json.loads(lines(tmp_path)[0])["seq"] > 0
    assert audit(tmp_path).findings == []


def test_the_oldest_file_removed_by_hand_is_found(tmp_path):
    write_log(tmp_path, scenes=8, telemetry_max_bytes=16384, telemetry_backups=20)
    oldest = max(tmp_path.glob(f"{FILE_NAME}.*"), key=lambda file: int(file.suffix[1:]))
    begin = json.loads(oldest.read_bytes().splitlines()[0])["seq"]
    oldest.unlink()
    assert f"beginning: expected seq {begin}," in problems(tmp_path)[0]


def test_a_run_that_a_crash_cut_off_is_listed_and_no_finding(tmp_path):
    write_log(tmp_path, last_run_ends=False)
    report = audit(tmp_path)
    assert (report.findings, report.runs, report.cut_off) == ([], 3, 1)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.lists(st.booleans(), max_size=4),
            st.sampled_from(["stopped", "killed", "killed in mid-write"]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_befalls_an_honest_service_its_journal_is_sound(tmp_path_factory, lives):
    """Lives of scenes, at the start of some of which the disk refuses for a while."""
    directory = tmp_path_factory.mktemp("honest")
    for number, (scenes, end) in enumerate(lives):
        live(directory, f"life-{number}", scenes, end)
        assert problems(directory) == []
    assert audit(directory).spent_uatp <= RUN_UATP * sum(len(scenes) for scenes, _ in lives)


def live(directory, name, scenes, end):
    clock = FakeClock(monotonic_ns=START_NS)
    made = Settings(
        telemetry_dir=str(directory), audit_every=5, telemetry_max_bytes=16384, telemetry_backups=2
    )
    mailbox = FakeReader()
    telemetry, ledger = Telemetry([mailbox], settings=made, clock=clock), Ledger(10**9)
    telemetry.note("ledger", ledger.operation("open", None, 10**9), time_ns=START_NS)
    for run_id, is_disk_broken in enumerate(scenes):
        scene_id = f"{name}-{run_id}"
        telemetry.directory.open(run_id, run_info(request_id=scene_id, scene_id=scene_id))
        for operation, spent in (("lock", None), ("settle", RUN_UATP)):
            fields = ledger.operation(operation, scene_id, RUN_UATP, spent)
            telemetry.note("ledger", fields, time_ns=START_NS)
            if is_disk_broken and operation == "lock":
                telemetry._journal.fail(OSError("unplugged"))
            telemetry._drain.drain_once(0.0)
            clock.advance(2.0)
        mailbox._batches.append(raw_run([2.0, 1.5, 1.25, 1.25], run_id=run_id))
        if end == "stopped" or run_id + 1 < len(scenes):
            telemetry._drain.drain_once(
                0.0
            )  # else death comes when the last scene is settled and not recorded
    if end == "stopped":
        telemetry.start()
        telemetry.close()
        return
    telemetry._journal.close()
    if end == "killed in mid-write":
        with (directory / FILE_NAME).open("ab") as file:
            file.write(b'{"E":2.0,"E0":2.0,"E_no')


def test_a_journal_that_passes_from_one_service_to_another_is_sound(tmp_path):
    """Services on one folder: one has the journal, the next loses what it tells until that one stops."""
    clock, lost = FakeClock(monotonic_ns=START_NS), 0

    def begin():
        ledger = Ledger(10**9)
        telemetry = Telemetry([], settings=Settings(telemetry_dir=str(tmp_path)), clock=clock)
        telemetry.note("ledger", ledger.operation("open", None, 10**9), time_ns=START_NS)
        return telemetry, ledger

    def work(service, name):
        telemetry, ledger = service
        for operation, spent in (("lock", None), ("settle", 1000)):
            fields = ledger.operation(operation, name, RUN_UATP, spent)
            telemetry.note("ledger", fields, time_ns=START_NS)
        telemetry._drain.drain_once(0.0)

    having = begin()
    for turn in range(3):
        waiting = begin()
        for service in (having, waiting):
            work(service, f"scene-{turn}-{service is having}")
        having[0]._journal.close()
        clock.advance(2.0)
        having, lost = waiting, lost + 3
        work(having, f"scene-{turn}")
        report = audit(tmp_path)
        assert (report.findings, report.lost, report.is_complete) == ([], lost, False)
    having[0]._journal.close()


# Tampering

DAMAGE = {
    "drop": lambda rows, i, j: rows[:i] + rows[i + 1 :],
    "duplicate": lambda rows, i, j: rows[: i + 1] + rows[i:],
    "move": lambda rows, i, j: [*(rest := rows[:i] + rows[i + 1 :])[:j], rows[i], *rest[j:]],
    "swap": lambda rows, i, j: [rows[j if n == i else i if n == j else n] for n in range(len(rows))],
    "truncate": lambda rows, i, j: rows[:i],
    "behead": lambda rows, i, j: rows[i + 1 :],
    "copy elsewhere": lambda rows, i, j: [*rows[:j], rows[i], *rows[j:]],
    "insert a plain record": lambda rows, i, j: [
        *rows[:i],
        b'{"plugin":"x","step_idx":0,"E":1,"halt_reason":null,"budget":{"ATP_spent":0,"time_ms":0},'
        b'"trust":{"monotonicity_ratio":0,"dE_variance":0}}\n',
        *rows[i:],
    ],
}


@given(st.data(), st.sampled_from(sorted(DAMAGE)))
def test_whoever_drops_adds_or_reorders_lines_is_found_out(sound, tmp_path_factory, data, damage):
    rows = lines(sound)
    i, j = (data.draw(st.integers(0, len(rows) - 1)) for _ in range(2))
    damaged = DAMAGE[damage](rows, i, j)
    if damaged == rows or (damage == "insert a plain record" and i == 0):
        return  # nothing changed; what stands before the chain is counted as that
    directory = shutil.copytree(sound, tmp_path_factory.mktemp("damaged") / "log")
    (directory / FILE_NAME).write_bytes(b"".join(damaged))
    assert audit(directory).findings != []


@given(st.data())
def test_whoever_changes_or_cuts_out_bytes_is_found_out(sound, tmp_path_factory, data):
    content = bytearray(b"".join(lines(sound)))
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start, min(start + 40, len(content))))
    damaged = content[:start] + data.draw(st.binary(max_size=40)) + content[end:]
    if damaged == content:
        return
    directory = shutil.copytree(sound, tmp_path_factory.mktemp("damaged") / "log")
    (directory / FILE_NAME).write_bytes(damaged)
    if lines(directory)[-len(lines(sound)) :] == lines(sound):
        assert audit(directory).unchained > 0, "plain records before the chain are counted as that"
    else:
        assert audit(directory).findings != []


def test_whatever_is_cut_off_at_the_end_is_found_by_the_head(copy):
    rows = lines(copy)
    for kept in range(len(rows)):
        (copy / FILE_NAME).write_bytes(b"".join(rows[:kept]))
        assert any("truncated or changed" in problem for problem in problems(copy)), kept
    (copy / FILE_NAME).unlink()
    assert "truncated or changed" in problems(copy)[0]


def test_findings_name_the_file_the_line_the_record_and_what_was_expected(copy):
    rows = lines(copy)
    rows[3] = rows[3].replace(b'"cause":"admit"', b'"cause":"join"')
    (copy / FILE_NAME).write_bytes(b"".join(rows))
    (first,) = audit(copy).findings
    seq = json.loads(rows[3])["seq"]
    assert (first.file, first.line, first.seq) == (str(copy / FILE_NAME), 4, seq)
    assert re.fullmatch(r"record_hash \(changed\): expected [0-9a-f]{64}, got [0-9a-f]{64}", first.problem)
    assert str(first) == f"{copy / FILE_NAME}:4: seq {seq}: {first.problem}"


def test_a_line_spelled_otherwise_is_found_though_it_says_the_same(copy):
    rows = lines(copy)
    rows[3] = rows[3].replace(b",", b", ", 1)
    (copy / FILE_NAME).write_bytes(b"".join(rows))
    assert "canonical form" in problems(copy)[0]


# Signatures


def test_a_signature_of_another_key_is_found(copy, tmp_path):
    foreign = SigningKey(tmp_path / "foreign.pem")
    for name in ("audit_key.pem", "audit_key.pub.pem"):
        shutil.copy(tmp_path / name.replace("audit_key", "foreign"), copy / name)
    head = json.loads((copy / HEAD_NAME).read_bytes())
    fields = {key: value for key, value in head.items() if key not in ("public_key", "signature")}
    (copy / HEAD_NAME).write_text(json.dumps(foreign.sign(fields)))
    assert all("public_key (foreign)" in problem for problem in problems(copy))
    assert len(problems(copy)) == audit(copy).checkpoints


def test_a_chain_forged_with_another_key_is_found_by_whoever_kept_the_public_one(sound, tmp_path):
    write_log(tmp_path, name="a")
    assert audit(tmp_path).is_sound
    assert "public_key (foreign)" in problems(tmp_path, public_key=sound / "audit_key.pub.pem")[0]


def test_without_a_public_key_one_key_must_have_signed_all(copy):
    (copy / "audit_key.pub.pem").unlink()
    assert audit(copy).is_sound


def test_a_forged_signature_is_found(copy):
    def forge(record):
        record["signature"] = "00" * 64

    rewrite(copy, forge, "checkpoint")
    assert any("signature: expected one by public_key" in problem for problem in problems(copy))


@pytest.mark.parametrize("content", ["{", "[]", '{"signed_seq": 1}'])
def test_a_head_that_is_none_is_found(copy, content):
    (copy / HEAD_NAME).write_text(content)
    assert "expected a signed head, got something else" in problems(copy)[0]


def test_a_missing_head_is_found(copy):
    (copy / HEAD_NAME).unlink()
    assert "expected a signed head beside the journal, got none" in problems(copy)[0]


def test_a_public_key_that_is_none_is_an_error(sound):
    with pytest.raises(ConfigError, match="expected an Ed25519 public key"):
        audit(sound, public_key=sound / HEAD_NAME)


def test_a_folder_without_a_journal_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no telemetry journal"):
        audit(tmp_path)


def test_a_journal_of_version_1_0_proves_nothing_and_says_so(tmp_path):
    shutil.copy(GOLDEN_1_0, tmp_path / FILE_NAME)
    report = audit(tmp_path)
    assert (report.records, report.unchained, report.is_sound) == (0, 4, False)


def test_a_chain_that_version_1_1_began_goes_on_in_this_one(tmp_path):
    shutil.copy(GOLDEN / "v1_1" / "run_of_3_steps.jsonl", tmp_path / FILE_NAME)
    write_log(tmp_path)
    report = audit(tmp_path)
    assert (report.findings, report.unchained, report.runs) == ([], 0, 1 + 4)


def test_a_clock_that_is_set_while_serving_breaks_neither_chain_nor_order(tmp_path):
    clock, mailbox = FakeClock(monotonic_ns=START_NS, unix_ns=90 * 10**9), FakeReader()
    made = Settings(telemetry_dir=str(tmp_path), audit_every=3)
    telemetry = Telemetry([mailbox], settings=made, clock=clock)
    drained = threading.Semaphore(0)
    telemetry.start()
    for run, now_ns in enumerate((90 * 10**9, 1_800_000_000 * 10**9, 1_700_000_000 * 10**9)):
        clock.set_unix(now_ns)
        telemetry.directory.open(run, run_info(request_id=f"request-{run}"))
        telemetry.hub.subscribe(lambda told: [drained.release() for _ in told or ()], f"request-{run}")
        mailbox.give(raw_run([2.0, 1.5, 1.25, 1.25], run_id=run))
        assert [drained.acquire(timeout=10) for _ in range(4)] == [True] * 4
    telemetry.close()
    report = audit(tmp_path)
    assert (report.findings, report.runs, report.gaps) == ([], 3, 0)
    told = [json.loads(line) for line in lines(tmp_path)]
    steps = [record for record in told if record["kind"] == "step"]
    assert [record["seq"] - told[0]["seq"] for record in told] == list(range(len(told)))
    assert [record["ts_unix_ns"] // 10**9 // 10**8 for record in steps] == [0] * 4 + [18] * 4 + [17] * 4
    assert all(record["budget"]["time_ms"] > 0 for record in steps)


def test_what_the_runs_tell_of_the_board_is_summed_up(tmp_path):
    write_log(tmp_path, board_period_s=0.0)
    assert "board        power mode not known, hottest not known, 0 runs ended throttled" in text(tmp_path)
    for final, board in {3: ("15W", 71.25, True), 7: ("25W", None, False), 11: (None, 64.5, None)}.items():
        told = dict(zip(("power_mode", "temp_C", "throttled"), board, strict=True))
        rewrite(tmp_path, lambda record, told=told: record.update(board=told), "step", final)
    assert "board        power mode 15W, 25W, hottest 71.2 C, 1 runs ended throttled" in text(tmp_path)


# The books, in a chain that is whole


def nested(record, path):
    for key in path[:-1]:
        record = record[key]
    return record, path[-1]


@pytest.mark.parametrize(
    ("kind", "number", "path", "by", "words"),
    [
        ("ledger", 1, ("balance", "available_uatp"), 1, "balance: expected"),
        ("ledger", 1, ("balance", "locked_uatp"), -1, "available + locked + adp: expected initial"),
        ("ledger", 1, ("amount_uatp",), 1, "balance: expected"),
        ("ledger", 1, ("energy_ratio",), 0.01, "energy_ratio: expected"),
        ("ledger", 2, ("ledger_seq",), 1, "ledger_seq: expected 2"),
        ("ledger", 4, ("spent_uatp",), 1, "spent_uatp: expected at most"),
        ("ledger", 4, ("spent_uatp",), -1, "spent_uatp: expected 30060000, which its runs spent"),
        ("ledger", 4, ("amount_uatp",), -1, "amount_uatp: expected"),
        ("allocation", 0, ("limits", 0, "limit_uatp"), 10**6, "sum of limit_uatp: expected at most"),
        ("allocation", 0, ("limits", 0, "limit_uatp"), -(10**7), "ATP_spent before the last step"),
        ("scene", 0, ("members", 1, "spent_uatp"), 1, "run 1: spent_uatp: expected 15030000"),
        ("scene", 0, ("members", 1, "steps"), 1, "run 1: steps: expected 3"),
        ("step", 3, ("budget", "ATP_spent"), 1e-6, "spent_uatp: expected 30060001, which its runs spent"),
        ("step", 1, ("trust", "contribution_to_H"), 1e-9, "trust.contribution_to_H: expected 0.125"),
        ("step", 1, ("trust_weight",), 0.5, "trust.contribution_to_H: expected 0.25"),
        ("trust", 0, ("t3", "talent", "change"), 1e-6, "t3.talent.change: expected 0.008"),
        ("trust", 0, ("t3", "training", "to"), 1e-6, "t3.training.to: expected"),
        ("trust", 1, ("t3", "temperament", "from"), 1e-6, "t3.temperament.from: expected"),
        ("trust", 0, ("quality",), 0.05, "t3.talent.change: expected"),
        ("trust", 0, ("repetition_n",), 1, "t3.talent.change: expected"),
        ("trust", 0, ("idle_months",), 1, "t3.training.change: expected"),
        ("trust", 0, ("weight_after",), 1e-6, "weight_after: expected"),
        ("trust", 1, ("v3", "valuation"), 1e-6, "v3.valuation: expected 0.675"),
        ("trust", 1, ("v3", "composite"), 1e-6, "v3.composite: expected"),
        ("trust", 1, ("v3", "verified_claims"), 2, "verified_claims: expected 0 to total_claims"),
        ("trust", 0, ("lrc", "threshold"), 1e-6, "lrc.threshold: expected 0.6"),
        ("trust", 0, ("lrc", "quorum"), 1, "lrc.quorum: expected 3"),
        ("trust", 0, ("lrc", "R"), 0.01, "lrc.damping: expected"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_a_number_that_does_not_follow_from_the_others_is_found(copy, kind, number, path, by, words):
    def change(record):
        holder, key = nested(record, path)
        holder[key] += by

    rewrite(copy, change, kind, number)
    assert any(words in finding.problem for finding in book_problems(copy))


@pytest.mark.parametrize(
    ("kind", "number", "change", "words"),
    [
        ("trust", 0, {"is_success": False}, "is_success: expected True"),
        ("trust", 0, {"rule_id": "t3-outcome-1"}, "rule_id: expected t3-quality-1"),
        ("trust", 1, {"outcome_class": "ethics_violation"}, "t3.talent.change: expected -0.05"),
        ("ledger", 3, {"operation": "lock"}, "available_uatp: expected 0 or more without an overdraft"),
        ("step", 2, {"halt_reason": "timeout"}, "expected nothing after its final record"),
    ],
    ids=str,
)
def test_a_word_that_does_not_fit_is_found(tmp_path, kind, number, change, words):
    write_log(tmp_path, scenes=4 if "available" in words else 2)
    rewrite(tmp_path, lambda record: record.update(change), kind, -3 if "available" in words else number)
    assert any(words in finding.problem for finding in book_problems(tmp_path)), book_problems(tmp_path)


def test_two_settlements_of_a_scene_are_found(copy):
    def settle_again(record):
        record.update(operation="settle", spent_uatp=0, scene_id="a0")

    rewrite(copy, settle_again, "ledger", 5)
    assert any("expected nothing after its settlement" in f.problem for f in book_problems(copy))


def test_a_declared_loss_excuses_what_it_hides(copy):
    """A gap in seq with a whole chain is a loss that the drain has declared."""
    records = [json.loads(line) for line in lines(copy)]
    lost = next(r for r in records if r["kind"] == "ledger" and r["operation"] == "extend")
    prev, written = "0" * 64, []
    for record in records:
        if record is not lost:
            sealed = seal(draft(record), prev)
            written.append(sealed.line.decode())
            prev = sealed.record_hash
    (copy / FILE_NAME).write_text("\n".join(written) + "\n")
    assert book_problems(copy) == []
    assert (audit(copy).gaps, audit(copy).lost) == (1, 1)
    assert not audit(copy).is_complete


@pytest.mark.parametrize("lost", [(0, 0), (3, 0), (0, 2), (3, 2)])
def test_the_verdict_says_how_many_records_the_audit_could_not_see(tmp_path, lost):
    """Lost before the first record of the chain, and after some."""
    before, between = lost
    mailbox = FakeReader([(before, raw_run([2.0, 1.5], run_id=1)), (between, raw_run([2.0], run_id=2))])
    telemetry = Telemetry([mailbox], settings=Settings(telemetry_dir=str(tmp_path)), clock=FakeClock())
    for run_id in (1, 2):
        telemetry.directory.open(run_id, run_info())
    telemetry.start()
    telemetry.close()
    report = audit(tmp_path)
    assert (report.findings, report.lost, report.gaps) == ([], sum(lost), (before > 0) + (between > 0))
    assert report.is_complete == (sum(lost) == 0)
    missing = f"sound, but not complete: {sum(lost)} records were never written, and stay unknown"
    assert text(tmp_path)[-1] == f"verdict      {'sound' if report.is_complete else missing}"
    assert report.document()["verdict"] == report.verdict
