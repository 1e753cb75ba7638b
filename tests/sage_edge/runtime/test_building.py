"""Building ahead of time: what is due, in whose turn, how far it has come, and how it is called off."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from sage_edge.errors import EngineError
from sage_edge.irp.recipe import Recipe, batch_widths
from sage_edge.runtime.building import BuildState, Built, Machine, PlanBuilder
from sage_edge.runtime.plans import PlanStore
from tests.fake_tensorrt import recipe
from tests.fakes import FakeClock


class FakeBuild:
    """Builds by writing down what it was asked for."""

    def __init__(self, steps=2):
        self.calls = []
        self.active = self.most_active = 0
        self._steps = steps
        self._count = threading.Lock()

    def __call__(self, onnx, width, advance, cache):
        with self._count:
            self.active += 1
            self.most_active = max(self.most_active, self.active)
        for step in range(self._steps):
            if not advance((step + 1) / self._steps):
                raise EngineError("Build canceled by user")
        with self._count:
            self.active -= 1
            self.calls.append((onnx, width, cache))
        return Built(b"%d %s" % (width, onnx), cache + b".")


def builder(folder, build, clock=None, **machine):
    at = Machine(**{"tensorrt": "tensorrt-10.3.0", "sm": "8.7", "builder": 1, "build": build} | machine)
    return PlanBuilder(PlanStore(folder / "engines"), at, clock or FakeClock())


def states(verdicts):
    return {name: verdict.state for name, verdict in verdicts.items()}


def test_every_width_of_every_recipe_is_built_once(tmp_path):
    build = FakeBuild()
    recipes = [recipe(tmp_path, "net.step.fp16"), recipe(tmp_path, "net.decoder.fp16", b"{}", widths=(4,))]
    planner = builder(tmp_path, build)
    names = ["net.step.fp16.b1", "net.step.fp16.b4", "net.decoder.fp16.b4"]
    assert states(planner.verdicts(recipes)) == dict.fromkeys(names, "missing")
    assert planner.build(recipes, BuildState(FakeClock())) == names
    assert states(planner.verdicts(recipes)) == dict.fromkeys(names, "ready")
    assert planner.build(recipes, BuildState(FakeClock())) == []
    assert [width for _, width, _ in build.calls] == [1, 4, 4]
    for wanted in planner.wanted(recipes):
        expected = b"%d %s" % (wanted.key.width, wanted.recipe.read())
        assert planner.store.load(wanted.name, wanted.key) == expected


def test_what_one_build_measured_is_given_to_the_next(tmp_path):
    build = FakeBuild()
    builder(tmp_path, build).build([recipe(tmp_path)], BuildState(FakeClock()))
    assert [cache for _, _, cache in build.calls] == [b"", b"."]


@pytest.mark.parametrize(
    ("change", "state"),
    [({"tensorrt": "tensorrt-10.16.1"}, "foreign"), ({"sm": "9.0"}, "foreign"), ({"builder": 2}, "stale")],
)
def test_another_machine_or_another_way_to_build_makes_every_plan_due(tmp_path, change, state):
    recipes = [recipe(tmp_path)]
    builder(tmp_path, FakeBuild()).build(recipes, BuildState(FakeClock()))
    build = FakeBuild()
    other = builder(tmp_path, build, **change)
    assert set(states(other.verdicts(recipes)).values()) == {state}
    assert len(other.build(recipes, BuildState(FakeClock()))) == len(build.calls) == 2


def test_a_new_network_makes_its_plans_due_and_no_others(tmp_path):
    kept, changed = recipe(tmp_path, "net.a.fp16", widths=(1,)), recipe(tmp_path, "net.b.fp16", widths=(1,))
    planner = builder(tmp_path, FakeBuild())
    planner.build([kept, changed], BuildState(FakeClock()))
    changed = recipe(tmp_path, "net.b.fp16", b'{"new": 1}', widths=(1,))
    assert states(planner.verdicts([kept, changed])) == {"net.a.fp16.b1": "ready", "net.b.fp16.b1": "stale"}
    assert planner.build([kept, changed], BuildState(FakeClock())) == ["net.b.fp16.b1"]


def test_a_damaged_plan_is_built_again(tmp_path):
    recipes = [recipe(tmp_path)]
    planner = builder(tmp_path, FakeBuild())
    planner.build(recipes, BuildState(FakeClock()))
    [path] = (tmp_path / "engines").glob("*.b4.*.plan")
    path.write_bytes(path.read_bytes()[:-1])
    assert planner.build(recipes, BuildState(FakeClock())) == ["net.step.fp16.b4"]
    assert set(states(planner.verdicts(recipes)).values()) == {"ready"}


def test_builders_of_one_folder_take_turns_and_build_nothing_twice(tmp_path):
    build, recipes = FakeBuild(), [recipe(tmp_path, widths=(1, 2, 4))]
    with ThreadPoolExecutor(4) as pool:
        work = [
            pool.submit(builder(tmp_path, build).build, recipes, BuildState(FakeClock())) for _ in range(4)
        ]
        built = [name for item in work for name in item.result()]
    assert sorted(built) == ["net.step.fp16.b1", "net.step.fp16.b2", "net.step.fp16.b4"]
    assert build.most_active == 1


def test_a_builder_that_waits_for_its_turn_can_be_called_off(tmp_path):
    planner, state = builder(tmp_path, FakeBuild()), BuildState(FakeClock())
    state.cancel()
    with planner.store.locked(lambda: None), pytest.raises(EngineError, match="called off"):
        planner.build([recipe(tmp_path)], state)


def test_a_build_that_is_called_off_ends_at_the_next_step_and_keeps_what_was_finished(tmp_path):
    state = BuildState(FakeClock())

    def build(onnx, width, advance, cache):
        if width == 4:
            state.cancel()
        return FakeBuild()(onnx, width, advance, cache)

    planner, recipes = builder(tmp_path, build), [recipe(tmp_path)]
    with pytest.raises(EngineError, match=r"net\.step\.fp16\.b4: Build canceled"):
        planner.build(recipes, state)
    assert states(planner.verdicts(recipes)) == {"net.step.fp16.b1": "ready", "net.step.fp16.b4": "missing"}


def test_a_file_that_is_not_the_recipes_is_never_built(tmp_path):
    changed = recipe(tmp_path)
    changed.path.write_bytes(b"something else")
    build = FakeBuild()
    with pytest.raises(EngineError, match="expected sha256"):
        builder(tmp_path, build).build([changed], BuildState(FakeClock()))
    assert build.calls == []


def test_a_plan_that_cannot_be_built_is_named(tmp_path):
    def build(onnx, width, advance, cache):
        raise EngineError("TensorRT cannot build the plan: types differ")

    with pytest.raises(
        EngineError, match=r"^net\.step\.fp16\.b1: TensorRT cannot build the plan: types differ$"
    ):
        builder(tmp_path, build).build([recipe(tmp_path)], BuildState(FakeClock()))


def test_age_and_build_time_come_from_the_clock(tmp_path):
    clock = FakeClock(unix_ns=5_000_000_000_000_000_000)

    def build(onnx, width, advance, cache):
        clock.advance(90.5)
        return Built(b"plan", b"")

    planner = builder(tmp_path, build, clock)
    planner.build([recipe(tmp_path, widths=(1,))], BuildState(clock))
    sidecar = planner.store.sidecar("net.step.fp16.b1")
    assert (sidecar.built_unix_s, sidecar.build_s) == (5_000_000_090, 90.5)


def test_the_estimate_follows_the_pace_so_far(tmp_path):
    clock = FakeClock()
    state = BuildState(clock)
    seen = []

    def build(onnx, width, advance, cache):
        for fraction in (0.5, 1.0):
            clock.advance(10)
            advance(fraction)
            seen.append(state.snapshot())
        return Built(b"", b"")

    assert state.snapshot().remaining_s is None
    assert state.snapshot().describe() == "looking for what has to be built"
    builder(tmp_path, build, clock).build([recipe(tmp_path)], state)
    assert [(s.plan, s.done, s.total) for s in seen] == [
        ("net.step.fp16.b1", 0, 2),
        ("net.step.fp16.b1", 0, 2),
        ("net.step.fp16.b4", 1, 2),
        ("net.step.fp16.b4", 1, 2),
    ]
    assert [(s.fraction, s.elapsed_s, s.remaining_s) for s in seen] == [
        (0.25, 10, pytest.approx(30)),
        (0.5, 20, pytest.approx(20)),
        (0.75, 30, pytest.approx(10)),
        (1.0, 40, pytest.approx(0)),
    ]
    assert seen[1].describe() == "net.step.fp16.b1 (1 of 2), 20 s, about 20 s left"
    assert state.snapshot() == ("", 2, 2, 1.0, 40, 0.0)
    assert state.snapshot().describe() == "2 plans built in 40 s"


@pytest.mark.parametrize(("slots", "widths"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 4, 8))])
def test_widths_are_one_half_and_all_of_the_slots(slots, widths):
    assert batch_widths(slots) == widths


@pytest.mark.parametrize("name", ["", "a/b", "../up"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(EngineError, match="without folders"):
        Recipe(name, tmp_path, "", "fp16", (1,))


def test_a_recipe_without_its_file_names_it(tmp_path):
    gone = replace(recipe(tmp_path), path=tmp_path / "gone.onnx")
    with pytest.raises(EngineError, match=r"gone\.onnx: engine file cannot be read: No such file"):
        gone.read()
