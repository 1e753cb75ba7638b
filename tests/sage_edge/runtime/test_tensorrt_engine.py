"""Plans on a device that computes with NumPy, under every version's names. No GPU runs here."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge import Settings
from sage_edge.errors import EngineError
from sage_edge.plugins import wanted_recipes
from sage_edge.plugins.vision import VisionPlugin
from sage_edge.runtime.backend import open_backend
from sage_edge.runtime.building import BuildState
from sage_edge.runtime.plans import PlanStore
from sage_edge.runtime.tensorrt import LoadedPlan, TensorRTBackend
from sage_edge.runtime.tensorrt.api import open_tensorrt
from sage_edge.runtime.tensorrt.build import Phases, build_plan
from tests.fake_tensorrt import SUPPORTED, FakeDevice, fake_tensorrt, network, recipe
from tests.fakes import FakeClock


def go_on(fraction):
    return True


def backend(folder, version="10.3", device=None, **behaviour):
    tensorrt, device = fake_tensorrt(version, device, **behaviour)
    return TensorRTBackend(tensorrt, device, PlanStore(folder / "engines"), FakeClock())


def opened(folder, *recipes, **kwargs):
    """Engines of recipes, built first."""
    made = backend(folder, **kwargs)
    made.builder.build(recipes, BuildState(FakeClock()))
    return [made.open(item) for item in recipes]


@pytest.fixture(params=SUPPORTED)
def version(request):
    return request.param


def test_an_engine_computes_what_its_network_says_for_any_number_of_rows(tmp_path, version):
    [engine] = opened(
        tmp_path, recipe(tmp_path, content=network(scale=3.0), widths=(1, 4, 6)), version=version
    )
    engine.require(["z"], ["scaled"])
    rng = np.random.default_rng(0)
    for rows in (6, 1, 3, 4, 5, 2):
        z = rng.standard_normal((rows, 3)).astype(np.float32)
        result = engine.run({"z": z})["scaled"]
        np.testing.assert_array_equal(result, z * np.float32(3))
        assert result.dtype == np.float32


def test_results_are_the_callers_to_keep(tmp_path):
    [engine] = opened(tmp_path, recipe(tmp_path))
    first = engine.run({"z": np.ones((2, 3), np.float32)})["scaled"]
    engine.run({"z": np.zeros((2, 3), np.float32)})
    assert (first == 2).all()


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"z": np.zeros((2, 4), np.float32)}, ["'z': (2, 3)", "'z': (2, 4)"]),
        ({"x": np.zeros((2, 3), np.float32)}, ["'z'", "'x'"]),
        ({}, ["'z'"]),
        ({"z": np.zeros((5, 3), np.float32)}, ["1 to 4 rows", "got 5"]),
        ({"z": np.zeros((0, 3), np.float32)}, ["1 to 4 rows", "got 0"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, tensors, words):
    [engine] = opened(tmp_path, recipe(tmp_path))
    with pytest.raises(EngineError) as caught:
        engine.run(tensors)
    for word in ["net.step.fp16", *words]:
        assert word in str(caught.value)


def test_an_engine_says_what_runs_it_and_what_it_was_built_from(tmp_path, version):
    made = recipe(tmp_path)
    [engine] = opened(tmp_path, made, version=version)
    names = {"10.3": "tensorrt-10.3.0", "rtx-1.7": "tensorrt_rtx-1.7.1.116"}
    assert engine.backend.startswith(names.get(version, f"tensorrt-{version}"))
    assert engine.sha256 == made.sha256
    assert (engine.inputs, engine.outputs) == ({"z": ("batch", 3)}, ["scaled"])
    with pytest.raises(EngineError, match="expected inputs"):
        engine.require(["frame"], ["scaled"])


def test_an_engine_is_never_built_when_it_is_opened(tmp_path):
    with pytest.raises(
        EngineError, match=r"net\.step\.fp16\.b1: missing plan.*run `sage-edge engines build`"
    ):
        backend(tmp_path).open(recipe(tmp_path))
    assert not (tmp_path / "engines").exists()


def test_plans_of_another_gpu_are_refused(tmp_path):
    opened(tmp_path, recipe(tmp_path))
    with pytest.raises(EngineError, match=r"foreign plan: sm: expected 9\.0, built with 8\.7"):
        backend(tmp_path, device=FakeDevice(sm="9.0")).open(recipe(tmp_path))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A vision model folder with its engines opened on both backends."""
    settings = Settings(slots=3, threads=1)
    planned = backend(tmp_path_factory.mktemp("plans"))
    planned.builder.build(wanted_recipes(settings), BuildState(FakeClock()))
    plugins = [VisionPlugin(), VisionPlugin()]
    for plugin, made in zip(plugins, (planned, open_backend(settings)), strict=True):
        recipes = plugin.recipes("fp32").items()
        plugin.load({graph: made.open(recipe.for_slots(settings.slots)) for graph, recipe in recipes})
    return plugins


@pytest.mark.heavy
def test_vision_refines_on_plans_as_it_does_on_onnx_files(model, nuclei_frame):
    """The plans compute with ONNX Runtime here: what is compared is everything around them."""
    on_plans, on_files = model
    assert (on_plans.backend, on_files.backend) == ("tensorrt-10.3.0", "onnxruntime-cpu")
    assert on_plans.context_shapes == on_files.context_shapes
    for rows in (1, 3):
        frames = [on_files.prepare(np.roll(nuclei_frame, 40 * n, axis=1)) for n in range(rows)]
        first, expected = on_plans.encode(frames), on_files.encode(frames)
        np.testing.assert_allclose(first.z, expected.z, atol=1e-4)  # a padded batch may be summed otherwise
        size = np.ones(rows, np.float32)
        for ours, theirs in zip(
            on_plans.advance(expected.z, expected.context, size),
            on_files.advance(expected.z, expected.context, size),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
        answers = zip(on_plans.answers(first.z, frames), on_files.answers(first.z, frames), strict=True)
        assert all((a.array == b.array).all() for a, b in answers)


# One execution on raw addresses, as a loop on the device uses it


def loaded(tensorrt, device, width=4, **network_is):
    plan = build_plan(tensorrt, network(**network_is), width, go_on, b"").plan
    with device.current():
        return LoadedPlan(tensorrt, device, plan, "net")


def bound(plan, device):
    """An execution with memory of the test's own."""
    with device.current():
        memory = {name: device.allocate(spec.size_bytes) for name, spec in plan.tensors.items()}
        execution = plan.open()
        execution.bind({name: int(item) for name, item in memory.items()})
    return execution, {name: device.view(int(item), (4, 3), np.float32) for name, item in memory.items()}


def test_enqueue_only_enqueues(version):
    tensorrt, device = fake_tensorrt(version)
    execution, arrays = bound(loaded(tensorrt, device), device)
    stream = device.stream()
    arrays["z"][:] = 5
    execution.enqueue(stream.handle)
    assert not (arrays["scaled"] == 10).any()
    stream.synchronize()
    assert (arrays["scaled"] == 10).all()


def test_what_is_captured_is_one_pass_and_comes_after_a_run(version):
    tensorrt, device = fake_tensorrt(version)
    execution, arrays = bound(loaded(tensorrt, device), device)
    arrays["z"][:] = 1
    assert execution.warm_up() == 1
    assert (arrays["scaled"] == 2).all()
    assert not any(stream.work for stream in device.streams.values())


def test_an_empty_capture_is_an_error_and_not_a_silent_no_op():
    tensorrt, device = fake_tensorrt(device=FakeDevice(captures=False))
    execution, _ = bound(loaded(tensorrt, device), device)
    with pytest.raises(EngineError, match=r"capture is empty; is Fake GPU the current device\?"):
        execution.warm_up()


def test_executions_of_one_plan_do_not_share_addresses_or_scratch():
    tensorrt, device = fake_tensorrt()
    plan = loaded(tensorrt, device)
    (first, a), (second, b) = bound(plan, device), bound(plan, device)
    stream = device.stream()
    a["z"][:], b["z"][:] = 1, 2
    first.enqueue(stream.handle)
    second.enqueue(stream.handle)
    stream.synchronize()
    assert (a["scaled"] == 2).all()
    assert (b["scaled"] == 4).all()


@pytest.mark.parametrize(
    ("addresses", "words"),
    [
        ({"z": 256}, ["expected addresses of ['scaled', 'z']", "got ['z']"]),
        ({"z": 256, "scaled": 512, "more": 768}, ["'more'"]),
        ({"z": 256, "scaled": 520}, ["scaled", "aligned to 256 bytes", "0x208"]),
        ({"z": 0, "scaled": 512}, ["z", "0x0"]),
    ],
)
def test_addresses_that_cannot_be_are_refused(addresses, words):
    tensorrt, device = fake_tensorrt()
    with device.current():
        execution = loaded(tensorrt, device).open()
    with pytest.raises(EngineError) as caught:
        execution.bind(addresses)
    for word in words:
        assert word in str(caught.value)
    with pytest.raises(EngineError, match=r"bind\(\) before enqueue\(\)"):
        execution.enqueue(1)


def test_a_plan_that_tensorrt_refuses_is_named_with_its_reason():
    tensorrt, device = fake_tensorrt()
    with device.current(), pytest.raises(EngineError, match=r"net: .*cannot load the plan: magic tag"):
        LoadedPlan(tensorrt, device, b"no plan", "net")


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [({"aux_streams": 2}, "without auxiliary streams, got 2"), ({"dynamic": True}, "static shape")],
)
def test_a_plan_that_could_not_be_captured_is_refused(behaviour, words):
    plain, device = fake_tensorrt()
    plan = build_plan(plain, network(), 4, go_on, b"").plan
    tensorrt, _ = fake_tensorrt(device=device, **behaviour)
    with device.current(), pytest.raises(EngineError, match=words):
        LoadedPlan(tensorrt, device, plan, "net")


def test_a_plan_without_scratch_memory_is_given_none():
    tensorrt, device = fake_tensorrt(scratch_bytes=0)
    execution, arrays = bound(loaded(tensorrt, device), device)
    assert execution.warm_up() == 1
    assert len(device.memory) == len(arrays)


# Building


def test_building_asks_for_a_graph_that_can_be_captured(version):
    tensorrt, _ = fake_tensorrt(version)
    build_plan(tensorrt, network(), 4, go_on, b"")
    assert tensorrt.module.configs[0].max_aux_streams == 0


def test_a_timing_cache_goes_round_where_tensorrt_keeps_one(version):
    tensorrt, _ = fake_tensorrt(version)
    built = build_plan(tensorrt, network(), 4, go_on, b"before")
    assert built.timing_cache == (b"" if version.startswith("rtx") else b"before+1")


@pytest.mark.parametrize("content", [b"broken", b"elsewhere"])
def test_a_timing_cache_that_is_refused_is_not_passed_over(content):
    tensorrt, _ = fake_tensorrt()
    with pytest.raises(EngineError, match=r"timing cache: delete the \.timing files"):
        build_plan(tensorrt, network(), 4, go_on, content)


def test_progress_rises_to_the_end():
    seen = []
    build_plan(fake_tensorrt()[0], network(), 4, lambda fraction: seen.append(fraction) or True, b"")
    assert seen == [0.5, 1.0]


@pytest.mark.parametrize(
    ("content", "behaviour", "advance", "words"),
    [
        (b"no onnx", {}, go_on, "cannot parse the ONNX file: node 7: no such operator"),
        (
            network(),
            {"dynamic": True},
            go_on,
            r"scaled: expected a static shape once the batch is 4, got \(-1, 3\)",
        ),
        (network(), {"refuses": "types differ"}, go_on, "cannot build the plan: types differ$"),
        (network(), {}, lambda fraction: False, "Build canceled by user"),
    ],
)
def test_what_cannot_be_built_says_why(content, behaviour, advance, words):
    tensorrt, _ = fake_tensorrt(**behaviour)
    with pytest.raises(EngineError, match=words):
        build_plan(tensorrt, content, 4, advance, b"")


def test_a_failure_is_not_explained_by_an_earlier_one():
    tensorrt, _ = fake_tensorrt(refuses="types differ")
    for content, reason in (
        (b"no onnx", "cannot parse"),
        (network(), "types differ"),
        (b"no onnx", "cannot parse"),
    ):
        with pytest.raises(EngineError, match=reason):
            build_plan(tensorrt, content, 4, go_on, b"")


def test_messages_of_tensorrt_go_to_the_log_from_warnings_on(caplog):
    tensorrt, _ = fake_tensorrt()
    for severity, message in (("VERBOSE", "chatter"), ("INFO", "more chatter"), ("WARNING", "a warning")):
        tensorrt.logger.log(SimpleNamespace(name=severity), message)
    assert tensorrt.logger.why().startswith("TensorRT did not say why")
    assert "chatter" not in caplog.text
    assert ("sage_edge.runtime.tensorrt.api", logging.WARNING, "a warning") in caplog.record_tuples


phases = st.recursive(st.integers(1, 4), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=12)


@given(phases)
def test_the_fraction_never_falls_and_ends_at_one(tree):
    progress, seen = Phases(), []

    def play(tree, name, parent):
        steps = tree if isinstance(tree, list) else [None] * tree
        progress.start(name, parent, len(steps))
        for number, inside in enumerate(steps):
            if inside is not None:
                play(inside, f"{name}.{number}", name)
            seen.append(progress.step(name, number))
        progress.finish(name)

    play(tree, "whole", None)
    assert seen == sorted(seen)
    assert all(0 < fraction <= 1 for fraction in seen)
    assert seen[-1] == 1


def test_nested_phases_add_up():
    progress = Phases()
    progress.start("whole", None, 4)
    assert progress.step("whole", 0) == 0.25
    progress.start("part", "whole", 2)
    assert progress.step("part", 0) == 0.375
    assert progress.step("unknown", 0) == 0.375


# Finding TensorRT


def module(version):
    return SimpleNamespace(__version__=version, ILogger=type("ILogger", (), {}))


def importing(**modules):
    def import_module(name):
        found = modules.get(name, ModuleNotFoundError(f"No module named {name!r}", name=name))
        if isinstance(found, Exception):
            raise found
        return found

    return import_module


def test_nothing_installed_says_what_to_install():
    with pytest.raises(EngineError, match=r"TensorRT is not installed: .*python3-libnvinfer.*backend = cpu"):
        open_tensorrt(importing())


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.2.0"])
def test_an_old_version_is_refused(version):
    with pytest.raises(
        EngineError, match=rf"expected 10\.3 or newer \(JetPack 6\.1 has 10\.3\), got {version}"
    ):
        open_tensorrt(importing(tensorrt=module(version)))


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.0.106"])
def test_a_supported_version_is_opened_under_its_name(version):
    assert open_tensorrt(importing(tensorrt=module(version))).label == f"tensorrt-{version}"


def test_tensorrt_comes_before_tensorrt_rtx_which_is_known_by_any_of_its_names():
    both = importing(tensorrt=module("10.3.0"), tensorrt_rtx=module("1.7.1"))
    assert not open_tensorrt(both).is_rtx
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        rtx = open_tensorrt(importing(**{name: module("1.7.1")}))
        assert (rtx.label, rtx.is_rtx) == ("tensorrt_rtx-1.7.1", True)


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libnvinfer.so.10: cannot open shared object file"),
        ModuleNotFoundError("No module named 'tensorrt_libs'", name="tensorrt_libs"),
    ],
)
def test_a_tensorrt_that_does_not_load_is_not_passed_over(error):
    with pytest.raises(
        EngineError, match=r"tensorrt is installed but does not load: .*(libnvinfer|tensorrt_libs)"
    ):
        open_tensorrt(importing(tensorrt=error, tensorrt_rtx=module("1.7.1")))
