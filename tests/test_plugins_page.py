"""docs/PLUGINS.md: what it shows runs, its tables are complete, and faulty plugins are told what it says."""

from __future__ import annotations

import inspect
import itertools
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sage_edge import (
    DOCUMENT,
    HRM,
    Encoded,
    IRPPlugin,
    IRPState,
    LatentPlugin,
    Settings,
    check,
    load_settings,
    open_hrm,
    open_plugin,
)
from sage_edge.errors import ConfigError, ParameterError, PluginError, SageError, ShapeError

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PAGE = (ROOT / "docs" / "PLUGINS.md").read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def rows(heading):
    """Cells of the tables of a section."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert section, heading
    lines = [line for line in section.splitlines() if re.match(r"\| [^|]", line)]
    return [line[2:-2].split(" | ") for line in lines]


#: Blocks that are files, by their names; the others are run as they stand.
FILES = dict(
    re.match(r"# (\w+\.py)\n(.*)", block, re.DOTALL).groups() for block in blocks("python") if block[0] == "#"
)
SCRIPTS = [block for block in blocks("python") if block[0] != "#"]


def test_the_first_plugin_is_the_example_to_the_letter():
    assert FILES["smooth.py"] == (EXAMPLES / "smooth" / "smooth.py").read_text(encoding="utf-8")


# What the page shows.


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory of a reader who has saved the page's files, and has the examples installed."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    installed = [str(tmp_path), *(str(EXAMPLES / name) for name in ("pagerank", "edges"))]
    monkeypatch.setattr(sys, "path", [*sys.path, *installed])
    yield tmp_path
    for name in set(sys.modules) - before:
        if not name.startswith("sage_edge"):
            del sys.modules[name]


def settings_for(path, **others):
    """Settings that serve a class as ``mine``."""
    config = {"mine": {"class": path}}
    return Settings(plugins=("mine",), plugin_config=config, telemetry_dir="", threads=1, slots=2, **others)


def answer(hrm, x, name="mine", **options):
    return hrm.submit(name, hrm.prepare(name, x), **options).future.result(30)


@pytest.mark.parametrize("number", range(len(SCRIPTS)))
def test_a_block_without_a_file_name_runs(folder, number):
    exec(compile(SCRIPTS[number], "docs/PLUGINS.md", "exec"), {})  # noqa: S102 - it is our own page


@pytest.mark.parametrize(
    "path", ["smooth:Smooth", "careful:Careful", "soften:Soften", "warm:WarmPageRank", "stirred:Stirred"]
)
def test_the_check_has_nothing_against_a_plugin_of_the_page(folder, path):
    found = check(open_plugin("mine", settings_for(path)))
    assert [finding for finding in found if finding.verdict == "FAIL"] == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_of_the_first_section_give_a_picture(folder):
    rows, columns = np.mgrid[:48, :64]
    picture = (100 + rows + columns + np.random.default_rng(1).normal(0, 20, rows.shape)).astype(np.uint8)
    Image.fromarray(picture).save(folder / "picture.png")
    checked, refined, served, asked = blocks("sh")
    [more] = re.findall(r"`(--set smooth.pull=\S+)`", PAGE)[:1]
    for command in (checked, f"{checked} {more}"):
        said = subprocess.run(started(command), capture_output=True, text=True, timeout=60, check=True).stdout
        assert "smooth: nothing to mend; for the profiles edge and workstation" in said
    subprocess.run(started(refined), capture_output=True, timeout=60, check=True)
    assert {path.name for path in (folder / "var" / "refined").iterdir()} == {
        "picture.json",
        "picture.answer.png",
    }
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    quiet = ["--port", port, "--threads", "1", "--telemetry-dir", ""]
    server = subprocess.Popen([*started(served), *quiet], stderr=subprocess.PIPE, text=True)
    log = list(itertools.takewhile(lambda line: "serving url" not in line, server.stderr))
    assert server.poll() is None, "".join(log)
    replies = []
    for command in asked.strip().splitlines():
        asks = [*shlex.split(command.replace("8080", port)), "--fail-with-body"]
        replies.append(subprocess.run(asks, capture_output=True, timeout=60, check=True).stdout)
    server.terminate()
    assert server.wait(30) == 0
    server.stderr.close()
    with Image.open(folder / "smoothed.png") as smoothed:
        assert (smoothed.size, smoothed.mode) == ((64, 48), "L")
    result = json.loads(replies[1])
    assert {"halt_reason", "steps", "E", "ATP_spent"} <= set(result)
    assert json.loads(replies[2])["smooth"]["takes"] == "frame"


def started(command):
    """A command of the page, by this interpreter."""
    program, *arguments = shlex.split(command)
    assert program == "sage-edge"
    return [sys.executable, "-m", "sage_edge", *arguments]


def test_only_a_plugin_that_looks_at_its_input_tells_its_caller_what_is_wrong(folder):
    grey = np.zeros((6, 8), np.uint8)
    with open_hrm(settings_for("smooth:Smooth")) as hrm, pytest.raises(PluginError, match=r"mine\.energy"):
        answer(hrm, grey)
    with open_hrm(settings_for("careful:Careful")) as hrm, pytest.raises(ShapeError, match="got \\[6, 8\\]"):
        answer(hrm, grey)


def test_two_instances_of_one_class_are_served_by_a_file(folder):
    tables = next(block for block in blocks("toml") if "plugins.soft" in block)
    (folder / "sage.toml").write_text(f'telemetry_dir = ""\n{tables}')
    with open_hrm(load_settings({}, {}, folder / "sage.toml")) as hrm:
        soft, firm = hrm.plugins["soft"], hrm.plugins["firm"]
        assert type(soft) is type(firm)
        assert (soft.config.get("pull"), firm.config.get("pull")) == (None, 0.2)
        assert (soft.halting.max_steps, firm.halting.max_steps) == (30, 12)
        frame = np.asarray(soft.example())
        assert answer(hrm, frame, "firm").run.E > answer(hrm, frame, "soft").run.E


def test_a_key_is_set_in_each_of_three_ways(tmp_path):
    quoted = [
        (cells[0], re.findall(r"`([^`]+)`", cells[1])) for cells in rows("Settings, instances, profiles")
    ]
    ways = {name.partition(" (")[0]: code for name, code in quoted}
    file = tmp_path / "sage.toml"
    file.write_text("\n".join(ways["file"]))
    name, value = ways["environment"][0].split("=")
    given = ways["command line"][0].removeprefix("--set ")
    for settings in (
        load_settings({}, {}, file),
        load_settings({"plugins": "smooth"}, {name: value}),
        load_settings({"plugins": "smooth", "set": [given]}, {}),
    ):
        assert settings.plugin_config == {"smooth": {"pull": 0.05}}


def test_a_backend_of_the_page_runs_the_networks_of_a_plugin(folder):
    [registered] = [block for block in blocks("toml") if "sage_edge.backends" in block]
    group, target = re.search(r'entry-points\."([\w.]+)"\]\n(.*)', registered).groups()
    info = folder / "counting-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{target}".replace('"', ""))
    with open_hrm(settings_for("edges:Edges", backend="counting")) as hrm:
        answer(hrm, np.zeros((8, 8, 3), np.uint8))
        assert hrm.status()["mine"]["backend"] == "onnxruntime-counted"
        assert hrm.plugins["mine"].net.calls > 0


# Its tables against the classes.


def listed():
    """Methods as they are written, and attributes, of the tables that list them."""
    names = {"methods": [], "attributes": []}
    kind = None
    for heading in ("What each method and attribute buys", "Many at once: LatentPlugin"):
        for cells in rows(heading):
            kind = {"method": "methods", "attribute": "attributes"}.get(cells[0], kind)
            names[kind] += re.findall(r"`([^`]+)`", cells[0])
    return names


def public(cls):
    """Names that a class has for everybody, those that are only annotated included."""
    annotated = {name for kind in cls.__mro__ for name in vars(kind).get("__annotations__", {})}
    return {name for name in annotated | set(dir(cls)) if not name.startswith("_")}


def is_method(name):
    return inspect.isroutine(getattr(LatentPlugin, name, None))


def test_every_method_has_a_row_with_its_parameters():
    written = listed()["methods"]
    assert len(set(written)) == len(written)
    for row in written:
        name, given = row.rstrip(")").split("(")
        parameters = [p for p in inspect.signature(getattr(LatentPlugin, name)).parameters if p != "self"]
        assert given == ", ".join(parameters), name
    assert {row.partition("(")[0] for row in written} == {n for n in public(LatentPlugin) if is_method(n)}


def test_every_attribute_has_a_row():
    written = listed()["attributes"]
    assert len(set(written)) == len(written)
    assert set(written) == {name for name in public(LatentPlugin) if not is_method(name)} | {"config"}


# What is said of a faulty plugin.


class Sound(IRPPlugin):
    """Halves its numbers. One that is above 0.9 is what the faulty ones below fail over."""

    def prepare(self, x):
        return np.asarray(x, np.float32).ravel()[:4] / 255

    def init_state(self, x0, task_ctx):
        return IRPState(x0.copy())

    def energy(self, state):
        return float(np.mean(state.x**2))

    def step(self, state, noise_schedule):
        return IRPState(state.x * np.float32(0.5), state.step_idx + 1, state.meta)


class SoundLatent(LatentPlugin):
    """Goes half of the way to its numbers."""

    state_shape, context_shapes, step_size = (4,), {"seen": (4,)}, 0.5
    prepare = Sound.prepare

    def encode(self, inputs):
        seen = np.stack(inputs)
        return Encoded(np.zeros_like(seen), {"seen": seen}, seen**2)

    def advance(self, z, context, step_size):
        delta = context["seen"] - z
        return delta, (z + step_size[:, None] * delta - context["seen"]) ** 2

    def energies(self, z, context):
        return (z - context["seen"]) ** 2


def raising(error):
    def method(self, *_):
        raise error

    return method


def move_in_place(self, state, _):
    np.multiply(state.x, 0.5, out=state.x)
    return IRPState(state.x, state.step_idx + 1)


def remember(self, state, _):
    self.last = (getattr(self, "last", 0 * state.x) + state.x) / 2
    return IRPState(self.last, state.step_idx + 1)


ticks = itertools.count(1.0)
latent_step = SoundLatent.advance
latent_start = SoundLatent.encode
#: What is wrong with a plugin, by the words of the page; None: the class is not found at all.
FAULTS = {
    "`step` is not written": {"step": IRPPlugin.step},
    "the class is no IRPPlugin": object,
    "a module that it imports is missing": None,
    "a key of its config is misspelt": {},
    "it refines pixels, on `edge`": {"state_kind": "pixels"},
    "it takes documents and has no `example`": {"takes": DOCUMENT},
    "`load` raises": {"load": lambda self, engines: engines["net"]},
    "`step` raises": {"step": raising(ValueError("bad luck"))},
    "`step` ends the process": {"step": raising(SystemExit(3))},
    "the energy is NaN": {"energy": lambda *_: float("nan")},
    "the energy is no number": {"energy": lambda *_: "low"},
    "the energy depends on something else": {"energy": lambda *_: next(ticks)},
    "`init_state` draws at random, or changes its input": {
        "init_state": lambda self, x0, _: IRPState(np.add(x0, 1, out=x0).copy())
    },
    "`step` returns an array": {"step": lambda self, state, _: state.x},
    "`step` does not count": {"step": lambda self, state, _: IRPState(state.x, state.step_idx)},
    "`step` changes the state that it is given": {"step": move_in_place},
    "`project` moves a state that is inside": {
        "project": lambda self, state: IRPState(state.x * 0.9, state.step_idx)
    },
    "the plugin keeps something of a request": {"step": remember},
    "`halt` returns a word of its own": {"halt": lambda *_: "done"},
    "`decode` returns a list": {"decode": lambda self, state: list(state.x)},
    "`emit_telemetry` adds an object": {
        "emit_telemetry": lambda self, *of: {**IRPPlugin.emit_telemetry(self, *of), "own": object()}
    },
    "`advance` returns another shape": {
        "advance": lambda self, *of: (latent_step(self, *of)[0][:, :2], latent_step(self, *of)[1])
    },
    "`encode` names other context": {
        "encode": lambda self, x: latent_start(self, x)._replace(context={"sawn": 0})
    },
}


def told():
    """What is said of each fault that stops the start, by the page."""
    faults = itertools.takewhile(lambda cells: cells[1] != "what happens", rows("When a plugin is wrong")[1:])
    return {fault: message.strip("`") for fault, message in faults}


def test_every_fault_of_the_page_is_tried():
    assert set(told()) == set(FAULTS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_the_example_shows_stops_the_start_with_these_words(fault, monkeypatch):
    changes, module = FAULTS[fault], types.ModuleType("faults")
    if isinstance(changes, dict):
        base = SoundLatent if {"advance", "encode"} & set(changes) else Sound
        module.Mine = type("Mine", (base,), changes)
    else:
        module.Mine = changes
    if changes is not None:
        monkeypatch.setitem(sys.modules, "faults", module)
    misspelt = {"pul": 1} if "config" in fault else {}
    if misspelt:
        module.Mine.config_keys = ("pull",)
    settings = Settings(
        plugins=("mine",), plugin_config={"mine": {"class": "faults:Mine", **misspelt}}, telemetry_dir=""
    )
    with pytest.raises((ConfigError, PluginError)) as stopped:
        open_hrm(settings)
    cause = f": {stopped.value.__cause__}" if stopped.type is PluginError and stopped.value.__cause__ else ""
    assert f"{stopped.value}{cause}".startswith(told()[fault])


class Picky(Sound):
    """Fails over what is bright, in a way that a test chooses."""

    fault = staticmethod(lambda energy: energy)

    def energy(self, state):
        energy = super().energy(state)
        return self.fault(energy) if energy > 0.25 else energy


def fail(error):
    raise error


BRIGHT, DIM = np.full(4, 255, np.uint8), np.full(4, 20, np.uint8)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (lambda _: fail(ValueError("a secret")), "plugin_failed"),
        (lambda _: "low", "plugin_failed"),
        (lambda _: fail(ParameterError("frame: too bright")), "bad_parameter"),
    ],
)
def test_a_fault_fails_its_own_request_alone(fault, code, monkeypatch):
    monkeypatch.setattr(Picky, "fault", staticmethod(fault))
    with HRM(Settings(telemetry_dir="", threads=1, slots=2), {"mine": Picky()}) as hrm:
        hrm.start()
        bad = hrm.submit("mine", hrm.prepare("mine", BRIGHT))
        assert answer(hrm, DIM).run.halt_reason == "slope<eps"
        with pytest.raises(SageError) as failed:
            bad.future.result(30)
    assert failed.value.code == code
    assert "secret" not in str(failed.value)


def test_a_plugin_that_fails_five_requests_in_a_row_is_among_the_problems_until_one_is_answered(monkeypatch):
    monkeypatch.setattr(Picky, "fault", staticmethod(lambda _: "low"))
    with HRM(Settings(telemetry_dir="", threads=1, slots=2), {"mine": Picky()}) as hrm:
        hrm.start()
        for count in range(5):
            assert (hrm.problems() == ["plugin_failing:mine"]) == (count == 5)
            with pytest.raises(PluginError):
                answer(hrm, BRIGHT)
        assert hrm.problems() == ["plugin_failing:mine"]
        answer(hrm, DIM)
        assert hrm.problems() == []


def test_an_energy_that_is_no_number_ends_the_run_with_its_best_state(monkeypatch):
    class Lost(Sound):
        def energy(self, state):
            return super().energy(state) if state.step_idx < 2 else float("nan")

    with HRM(Settings(telemetry_dir="", threads=1, slots=2), {"mine": Lost()}) as hrm:
        hrm.start()
        run = answer(hrm, BRIGHT).run
    assert (run.halt_reason, run.best_step, run.rewinds) == ("diverged", 1, 2)


def test_what_a_latent_plugin_returns_may_be_float64_and_lie_in_any_order():
    class Double(SoundLatent):
        def advance(self, z, context, step_size):
            found = super().advance(z, context, step_size)
            return tuple(np.asfortranarray(array.astype(np.float64)) for array in found)

    results = []
    for plugin in (SoundLatent(), Double()):
        with HRM(Settings(telemetry_dir="", threads=1, slots=2), {"mine": plugin}) as hrm:
            hrm.start()
            results.append(answer(hrm, BRIGHT))
    one, other = results
    np.testing.assert_array_equal(one.answer.array, other.answer.array)
    assert other.answer.array.dtype == np.float32


def test_a_slow_step_delays_its_own_plugin_and_no_other():
    begun, gate = threading.Event(), threading.Event()

    class Slow(Sound):
        def step(self, state, noise_schedule):
            if state.x[0] > 0.9:
                begun.set()
                gate.wait(30)
            return super().step(state, noise_schedule)

    with HRM(Settings(telemetry_dir="", threads=1, slots=2), {"mine": Slow(), "other": Sound()}) as hrm:
        hrm.start()
        slow = hrm.submit("mine", hrm.prepare("mine", BRIGHT))
        assert begun.wait(30)
        assert answer(hrm, DIM, "other").run.halt_reason == "slope<eps"
        assert not slow.future.done()
        gate.set()
        slow.future.result(30)
