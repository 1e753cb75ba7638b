"""The folder of plans: only what is whole and fits is handed out, whatever happened to the files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.errors import EngineError
from sage_edge.runtime.plans import PlanKey, PlanStore

KEY = PlanKey("ab" * 32, "fp16", 8, "tensorrt-10.3.0", "8.7", 1)
PLAN = bytes(range(256)) * 3
NAME = "nuclei.step.fp16.b8"

texts = st.text(st.characters(codec="utf-8"), max_size=12)
keys = st.builds(
    PlanKey,
    onnx_sha256=texts,
    precision=texts,
    width=st.integers(1, 1 << 20),
    tensorrt=texts,
    sm=texts,
    builder=st.integers(0, 99),
)


@contextmanager
def stored(key=KEY, plan=PLAN, name=NAME):
    with tempfile.TemporaryDirectory() as folder:
        store = PlanStore(Path(folder))
        store.commit(name, key, plan, built_unix_s=1_700_000_000, build_s=12.5)
        yield store


@given(keys, st.binary(max_size=99))
def test_a_plan_comes_back_as_it_was_kept_with_everything_that_was_recorded(key, plan):
    with stored(key, plan) as store:
        assert store.judge(NAME, key).state == "ready"
        assert store.load(NAME, key) == plan
        assert store.names() == [NAME]
        sidecar = store.sidecar(NAME)
        assert (sidecar.key, sidecar.size_bytes) == (key, len(plan))
        assert (sidecar.built_unix_s, sidecar.build_s) == (1_700_000_000, 12.5)


@given(keys, keys)
def test_a_plan_with_another_key_is_refused_and_the_fields_that_differ_are_named(built, needed):
    differing = {f.name for f in fields(PlanKey) if getattr(built, f.name) != getattr(needed, f.name)}
    with stored(built) as store:
        verdict = store.judge(NAME, needed)
        if not differing:
            assert verdict.state == "ready"
            return
        assert verdict.state == ("foreign" if differing & {"tensorrt", "sm"} else "stale")
        for name in ("onnx_sha256", "precision", "width", "tensorrt", "sm", "builder"):
            assert (f"{name}: expected " in verdict.why) == (name in differing)
        with pytest.raises(EngineError, match="run `sage-edge engines build`"):
            store.load(NAME, needed)


@pytest.mark.parametrize("field", [entry.name for entry in fields(PlanKey)])
def test_every_field_changes_the_digest(field):
    value = getattr(KEY, field)
    other = replace(KEY, **{field: value + 1 if isinstance(value, int) else value + "x"})
    assert other.digest != KEY.digest
    assert other.differing(KEY) == [field]


def test_a_refusal_is_one_line_that_says_what_differs_and_what_to_run():
    with stored() as store, pytest.raises(EngineError) as caught:
        store.load(NAME, replace(KEY, tensorrt="tensorrt-10.16.1"))
    assert str(caught.value) == (
        "nuclei.step.fp16.b8: foreign plan: tensorrt: expected tensorrt-10.16.1, built with tensorrt-10.3.0; "
        "run `sage-edge engines build`"
    )


@given(st.data())
def test_no_damage_to_a_plan_gets_through(data):
    with stored() as store:
        path = store.folder / store.sidecar(NAME).plan_file
        damage(path, data)
        assert store.judge(NAME, KEY).state == ("ready" if path.read_bytes() == PLAN else "damaged")
        assert store.judge(NAME, None).state == ("whole" if path.read_bytes() == PLAN else "damaged")


@given(st.data())
def test_whatever_happens_to_a_sidecar_no_other_plan_is_taken_for_the_right_one(data):
    with stored() as store:
        damage(store.folder / f"{NAME}.json", data)
        try:
            assert store.load(NAME, KEY) == PLAN
        except EngineError as exc:
            assert "run `sage-edge engines build`" in str(exc)


def damage(path, data):
    """Cut a file short, or flip one bit of it."""
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[at:]
    else:
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"format": 2}',
        '{"format": 1, "key": {"sm": "8.7"}}',
        '{"format": 1, "key": 3}',
    ],
)
def test_a_sidecar_that_is_none_is_damage_and_no_crash(tmp_path, document):
    (tmp_path / f"{NAME}.json").write_text(document)
    assert PlanStore(tmp_path).judge(NAME, KEY).state == "damaged"


def test_a_size_that_is_no_number_is_damage():
    with stored() as store:
        path = store.folder / f"{NAME}.json"
        path.write_text(path.read_text().replace(f'"size_bytes": {len(PLAN)}', '"size_bytes": Infinity'))
        assert store.judge(NAME, KEY).state == "damaged"


def test_a_sidecar_under_another_plans_name_is_damage():
    with stored() as store:
        (store.folder / f"{NAME}.json").rename(store.folder / "nuclei.step.fp16.b4.json")
        assert store.judge("nuclei.step.fp16.b4", KEY).state == "damaged"


def test_what_was_never_built_is_missing(tmp_path):
    assert PlanStore(tmp_path / "nowhere").judge(NAME, KEY).state == "missing"
    assert PlanStore(tmp_path / "nowhere").names() == []


def test_a_plan_replaces_the_one_of_its_name_and_no_other():
    with stored(plan=b"old") as store:
        store.commit("nuclei.step.fp16.b80", KEY, b"other", built_unix_s=0, build_s=0)
        store.commit(NAME, KEY, b"new", built_unix_s=0, build_s=0)
        assert store.load(NAME, KEY) == b"new"
        assert store.load("nuclei.step.fp16.b80", KEY) == b"other"
        assert len(list(store.folder.glob("*.plan"))) == 2


def test_timings_are_kept_for_each_machine(tmp_path):
    store = PlanStore(tmp_path)
    assert store.timing_cache("tensorrt-10.3.0", "8.7") == b""
    store.keep_timing_cache("tensorrt-10.3.0", "8.7", b"measured")
    store.keep_timing_cache("tensorrt-10.3.0", "8.7", b"")
    assert store.timing_cache("tensorrt-10.3.0", "8.7") == b"measured"
    assert store.timing_cache("tensorrt-10.3.0", "9.0") == b""


# A kill

_COMMIT_UNTIL_KILLED = """
import json, os, signal, sys
from pathlib import Path
from sage_edge.runtime.plans import PlanKey, PlanStore

folder, events_left, key = Path(sys.argv[1]), int(sys.argv[2]), PlanKey(**json.loads(sys.argv[3]))
store = PlanStore(folder)

def hook(event, arguments):
    global events_left
    if event in ("open", "os.rename", "os.remove", "fcntl.flock") and str(folder) in str(arguments):
        if events_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        events_left -= 1

with store.locked(lambda: None):
    sys.addaudithook(hook)
    store.commit("nuclei.step.fp16.b8", key, b"new" * 100, built_unix_s=0, build_s=0)
"""


def commit_until_killed(folder, events):
    """Commit in a process that is killed at its n-th touch of the folder; returns whether it was."""
    done = subprocess.run(
        [sys.executable, "-c", _COMMIT_UNTIL_KILLED, str(folder), str(events), json.dumps(asdict(KEY))],
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


@pytest.mark.heavy
def test_a_kill_at_any_moment_leaves_the_old_plan_or_the_new_one_and_no_lock():
    found, events = [], 0
    while True:
        with stored(plan=b"old" * 100) as store:
            killed = commit_until_killed(store.folder, events)
            found.append(store.load(NAME, KEY)[:3])
            with store.locked(lambda: pytest.fail("the lock of a killed process is still held")):
                store.commit(NAME, KEY, b"newer", built_unix_s=0, build_s=0)
            assert store.load(NAME, KEY) == b"newer"
            left = {path.name for path in store.folder.iterdir()}
            assert left == {f"{NAME}.json", store.sidecar(NAME).plan_file, "builds.lock"}
        if not killed:
            break
        events += 1
    assert events >= 4  # two files are written and renamed
    assert found == sorted(found, reverse=True)  # old until it is new
    assert set(found) == {b"old", b"new"}


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    store = PlanStore(tmp_path / "file" / "engines")
    with (
        pytest.raises(EngineError, match=r"engine_dir: .*cannot be written to.*--engine-dir"),
        store.locked(lambda: None),
    ):
        pass


def test_a_plan_that_cannot_be_read_is_damage_and_says_why():
    with stored() as store:
        (store.folder / store.sidecar(NAME).plan_file).unlink()
        verdict = store.judge(NAME, KEY)
        assert verdict.state == "damaged"
        assert os.strerror(2) in verdict.why
