"""`sage-edge engines`: with a machine that builds with NumPy, and on one without TensorRT."""

from __future__ import annotations

import json
import re

import pytest

from sage_edge import Settings
from sage_edge.commands import engines
from sage_edge.errors import EngineError
from sage_edge.plugins import wanted_recipes
from sage_edge.runtime.building import Built, Machine, PlanBuilder
from sage_edge.runtime.plans import PlanStore
from sage_edge.runtime.tensorrt import TensorRTBackend
from tests.command_line import run
from tests.fakes import FakeClock

GRAPHS = ("encoder", "step", "energy", "decoder")
NAMES = [f"nuclei.{graph}.fp16.b{width}" for graph in GRAPHS for width in (1, 2)]


class Backend:
    """Stands in for TensorRTBackend: real files, made-up plans."""

    sm = "8.7"

    def __init__(self, settings):
        machine = Machine("tensorrt-10.3.0", self.sm, 1, self._build)
        self.builder = PlanBuilder(PlanStore(settings.engine_dir_path), machine, FakeClock(unix_ns=10**18))

    def _build(self, onnx, width, advance, cache):
        advance(1.0)
        return Built(onnx[:: 10 * width], b"")


@pytest.fixture
def machine(monkeypatch):
    """A machine with TensorRT and a GPU, as the command sees it."""

    def use(sm="8.7"):
        kind = type("Backend", (Backend,), {"sm": sm})

        def from_settings(settings):
            from pathlib import Path
            from types import SimpleNamespace

            return kind(SimpleNamespace(engine_dir_path=Path(settings.engine_dir)))

        monkeypatch.setattr(TensorRTBackend, "from_settings", from_settings)

    use()
    return use


@pytest.fixture
def flags(tmp_path):
    return ["--engine-dir", tmp_path / "engines", "--precision", "fp16", "--slots", 2]


def command(capsys, verb, *flags):
    """Exit code, rows and the last line of stderr."""
    code, out, errors = run(capsys, "engines", verb, "--json", *flags)
    said = [line for line in re.split(r"[\r\n]", errors) if line.startswith("sage-edge: ")]
    return code, json.loads(out) if out else None, said


def test_build_list_and_verify_agree(machine, flags, capsys):
    code, built, _ = command(capsys, "build", *flags)
    assert code == 0
    assert [(row["name"], row["state"], row["why"]) for row in built] == [
        (n, "ready", "built") for n in NAMES
    ]
    code, again, _ = command(capsys, "build", *flags)
    assert (code, {row["why"] for row in again}) == (0, {"fits this machine"})
    code, listed, _ = command(capsys, "list", *flags)
    assert (code, [row["name"] for row in listed]) == (0, sorted(NAMES))
    for row in listed:
        assert (row["tensorrt"], row["sm"], row["precision"]) == ("tensorrt-10.3.0", "8.7", "fp16")
        assert row["size_bytes"] > 0
        assert len(row["digest"]) == 64
    assert len({row["digest"] for row in listed}) == len(NAMES)
    code, verified, _ = command(capsys, "verify", *flags)
    assert (code, {row["state"] for row in verified}) == (0, {"ready"})


def test_verify_finds_what_is_missing_damaged_or_built_elsewhere(machine, flags, capsys):
    command(capsys, "build", *flags)
    folder = flags[1]
    plan = next(folder.glob("nuclei.step.fp16.b1.*.plan"))
    plan.write_bytes(plan.read_bytes() + b"x")
    (folder / "nuclei.energy.fp16.b2.json").unlink()
    code, rows, _ = command(capsys, "verify", *flags)
    states = {row["name"]: row["state"] for row in rows}
    assert code == 1
    assert states.pop("nuclei.step.fp16.b1") == "damaged"
    assert states.pop("nuclei.energy.fp16.b2") == "missing"
    assert set(states.values()) == {"ready"}
    machine(sm="9.0")
    code, rows, _ = command(capsys, "verify", *flags)
    assert code == 1
    assert {row["state"] for row in rows} == {"foreign", "missing"}
    assert "sm: expected 9.0, built with 8.7" in rows[0]["why"]


def test_the_progress_is_shown(machine, flags, capsys):
    _, out, errors = run(capsys, "engines", "build", *flags)
    assert "8 plans built in" in errors
    assert out.splitlines()[0].split()[:3] == ["plan", "state", "key"]
    assert [line.split()[0] for line in out.splitlines()[1:]] == NAMES


def test_ctrl_c_calls_the_build_off_and_keeps_what_was_finished(tmp_path):
    settings = Settings(precision="fp16", slots=2)
    seen = []

    def build(onnx, width, advance, cache):
        seen.append(width)
        while len(seen) > 3 and advance(0.5):
            pass
        if len(seen) > 3:
            raise EngineError("Build canceled by user")
        return Built(onnx, b"")

    def interrupt(progress):
        if progress.done == 3:
            raise KeyboardInterrupt

    builder = PlanBuilder(PlanStore(tmp_path), Machine("tensorrt-10.3.0", "8.7", 1, build), FakeClock())
    with pytest.raises(KeyboardInterrupt):
        engines.build(settings, builder, FakeClock(), interrupt)
    verdicts = builder.verdicts(wanted_recipes(settings))
    assert [verdicts[name].state for name in NAMES] == ["ready"] * 3 + ["missing"] * 5


# Without TensorRT


@pytest.fixture
def bare(monkeypatch):
    """A machine without TensorRT, whatever is installed where the tests run."""

    def from_settings(settings):
        raise EngineError("TensorRT is not installed: set backend = cpu")

    monkeypatch.setattr(TensorRTBackend, "from_settings", from_settings)


def test_build_without_tensorrt_says_so_and_ends_with_2(bare, flags, capsys):
    code, rows, said = command(capsys, "build", *flags)
    assert (code, rows) == (2, None)
    assert said == ["sage-edge: TensorRT is not installed: set backend = cpu"]
    assert not flags[1].exists()


def test_list_works_anywhere(bare, flags, capsys):
    assert command(capsys, "list", *flags) == (0, [], [])


def test_verify_without_tensorrt_compares_checksums_and_says_what_it_cannot_tell(
    machine, flags, capsys, monkeypatch, request
):
    command(capsys, "build", *flags)
    request.getfixturevalue("bare")
    code, rows, said = command(capsys, "verify", *flags)
    assert (code, {row["state"] for row in rows}) == (2, {"whole"})
    assert said == [
        "sage-edge: checksums alone are compared, no plan can be said to fit: "
        "TensorRT is not installed: set backend = cpu"
    ]
    next(flags[1].glob("*.plan")).write_bytes(b"")
    code, rows, again = command(capsys, "verify", *flags)
    assert (code, again) == (1, said)
    assert "damaged" in {row["state"] for row in rows}


def test_a_plugin_without_networks_has_no_recipes():
    assert wanted_recipes(Settings(plugins=("control",))) == []


def test_ages_are_in_the_largest_unit_that_fits(tmp_path):
    rows = [
        {"name": "a", "state": "whole", "why": "", "digest": "d" * 64, "tensorrt": "t", "sm": "8.7"}
        | {"size_bytes": 1 << 20, "age_s": age_s}
        for age_s in (5, 60, 7200, 259200)
    ]
    table = engines.as_table([*rows, {"name": "b", "state": "damaged", "why": "no sidecar"}])
    assert [re.search(r"1\.00 +(\d+ \w+)", line)[1] for line in table.splitlines()[1:5]] == [
        "5 s",
        "1 min",
        "2 h",
        "3 d",
    ]
    assert table.splitlines()[5].split() == ["b", "damaged", "no", "sidecar"]
