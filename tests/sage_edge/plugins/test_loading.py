"""Plugins are found by name or path, made with their config, refused by profile, and given their networks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sage_edge import HaltPolicy, IRPPlugin, Recipe, Settings, open_hrm, open_plugin
from sage_edge.config import shared_file
from sage_edge.errors import ConfigError, EngineError, PluginError
from sage_edge.plugins import find_class, load_networks, make_plugins
from sage_edge.plugins.control import ControlPlugin
from sage_edge.runtime.backend import CpuBackend
from tests.seed_plugins import Counting, Halving

SEED = "tests.seed_plugins:Halving"


def settings(**keys):
    """Settings for plugins by name, each a class's path or a table of keys."""
    tables = {name: keys if isinstance(keys, dict) else {"class": keys} for name, keys in keys.items()}
    return Settings(plugins=tuple(tables), plugin_config=tables, threads=1, telemetry_dir="", slots=2)


def test_a_registered_name_and_the_path_of_a_class_lead_to_it():
    assert find_class("control") is ControlPlugin
    assert find_class(SEED) is Halving


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("audio", r"expected some of control, language, vision, or module:Class, got 'audio'"),
        ("nowhere:Plugin", "nowhere:Plugin: cannot be imported: No module named 'nowhere'"),
        ("tests.seed_plugins:Nobody", "cannot be imported: .* has no attribute 'Nobody'"),
        ("tests.seed_plugins:np", "expected a subclass of sage_edge.IRPPlugin, got <module 'numpy'"),
        ("builtins:dict", "expected a subclass of sage_edge.IRPPlugin, got <class 'dict'>"),
    ],
)
def test_what_is_no_plugin_is_refused_by_name(name, words):
    with pytest.raises(ConfigError, match=words):
        find_class(name)


def test_a_class_that_lacks_a_method_is_refused_and_the_method_named():
    class Half(IRPPlugin):
        def energy(self, state):
            return 0.0

    entry = SimpleNamespace(name="half", load=lambda: Half)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sage_edge.plugins.entry_points", lambda group: [entry])
        with pytest.raises(ConfigError, match="plugins: half: Half lacks the methods init_state, step"):
            make_plugins(Settings(plugins=("half",)))


def test_instances_of_one_class_are_served_under_their_own_names_with_their_own_config():
    chosen = settings(
        slow={"class": SEED, "share": 0.1}, quick={"class": SEED, "share": 0.9, "halt_eps": 0.01}
    )
    with open_hrm(chosen) as hrm:
        tickets = {name: hrm.submit(name, np.ones(4)) for name in ("slow", "quick")}
        steps = {name: ticket.future.result(30).run.step_idx for name, ticket in tickets.items()}
        assert hrm.plugins["slow"].name == "slow"
        assert tickets["quick"].future.result().plugin == "quick"
    assert steps["quick"] < steps["slow"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"speed": 3},
            "plugins.a: speed: unknown to this plugin; known: halt_eps, halt_K, halt_max_steps, share",
        ),
        ({"halt_eps": "small"}, "plugins.a: halt_eps: expected a number that eps can be, got 'small'"),
        ({"halt_K": 0}, "plugins.a: halt_K: expected a number that K can be, got 0"),
        ({"halt_K": 1.5}, "plugins.a: halt_K: expected a number that K can be, got 1.5"),
    ],
)
def test_a_key_that_a_plugin_cannot_use_stops_the_start_and_is_named(keys, words):
    with pytest.raises(ConfigError) as refused:
        make_plugins(settings(a={"class": SEED, **keys}))
    assert words in str(refused.value)


def test_the_halting_rule_of_a_model_can_be_changed_too():
    plugin = open_plugin("vision", settings(vision={"halt_eps": 0.5, "halt_K": 1}))
    assert (plugin.halting.eps, plugin.halting.K) == (0.5, 1)
    assert plugin.halting.max_steps == open_plugin("vision", settings(vision={})).halting.max_steps


def test_a_constructor_that_fails_is_named():
    def broken(self, config=None):
        raise OSError("no disk")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Halving, "__init__", broken)
        with pytest.raises(PluginError, match=r"a\.__init__: raised OSError"):
            make_plugins(settings(a=SEED))


# Profiles


class Diffusion(Halving):
    """Refines pixels; says itself that nothing may be touched before the profile was asked for."""

    state_kind = "pixels"

    def __init__(self, config=None):
        raise AssertionError("made before its profile was asked for")


class Board(Counting):
    """For boards alone."""

    profiles = ("edge",)


@pytest.mark.parametrize(
    ("cls", "profile", "words"),
    [
        (Diffusion, "edge", "is for the profile workstation since it refines pixels, not for edge"),
        (Board, "workstation", "is for the profile edge, not for workstation"),
    ],
)
def test_a_plugin_of_another_profile_is_refused_before_it_is_made(monkeypatch, cls, profile, words):
    entry = SimpleNamespace(name="other", load=lambda: cls)
    monkeypatch.setattr("sage_edge.plugins.entry_points", lambda group: [entry])
    for open_it in (make_plugins, lambda chosen: open_plugin("other", chosen), open_hrm):
        with pytest.raises(ConfigError, match=words):
            open_it(Settings(plugins=("other",), profile=profile))


def test_pixels_are_for_workstations_unless_their_author_says_otherwise():
    assert Diffusion.allowed_profiles() == ("workstation",)
    assert type("Small", (Diffusion,), {"profiles": ("edge",)}).allowed_profiles() == ("edge",)
    assert Halving.allowed_profiles() == ("edge", "workstation")


@pytest.mark.parametrize("scene", [False, True])
def test_the_cap_on_steps_holds_for_the_plugins_own_limit_for_scenes_and_for_branches(scene):
    from sage_edge import Budget, Entry

    class Endless(Halving):
        halting = HaltPolicy(eps=0.0, K=1, max_steps=50)

    chosen = Settings(max_steps_cap=3, threads=1, telemetry_dir="", slots=4)
    from sage_edge import HRM

    with HRM(chosen, {"endless": Endless()}) as hrm:
        hrm.start()
        budget = Budget(branches=2)
        if scene:
            _, tickets = hrm.submit_scene([Entry("endless", np.ones(4), budget)] * 2, Budget(atp=1e5))
        else:
            tickets = [hrm.submit("endless", np.ones(4), budget)]
        for ticket in tickets:
            result = ticket.future.result(30)
            assert (result.run.step_idx, result.run.halt_reason) == (3, "max_steps")


# Networks


def test_a_plugin_is_given_the_networks_that_it_wants_at_the_widths_that_are_served():
    opened = []

    class Wanting(Halving):
        def recipes(self, precision):
            folder = shared_file("engines/vision/models/nuclei")
            return {"net": Recipe.of(folder / f"decoder.{precision}.onnx", precision=precision)}

        def load(self, engines):
            self.engines = engines

    class Backend(CpuBackend):
        def open(self, recipe):
            opened.append(recipe)
            return super().open(recipe)

    plugin = Wanting()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sage_edge.plugins.open_backend", lambda chosen: Backend(1))
        load_networks({"wanting": plugin}, Settings(slots=5))
    assert [(recipe.name, recipe.precision, recipe.widths) for recipe in opened] == [
        ("decoder.fp32", "fp32", (1, 3, 5))
    ]
    assert plugin.engines["net"].outputs == ["logits"]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EngineError, match=r"net\.onnx: engine file cannot be read: No such file"):
        Recipe.of(tmp_path / "net.onnx")


def test_half_precision_is_the_default_where_the_backend_is_a_gpu(monkeypatch):
    from sage_edge.runtime import precision_of

    gpu = SimpleNamespace(name="gpu", load=lambda: SimpleNamespace(default_precision="fp16"))
    cpu = SimpleNamespace(name="cpu", load=lambda: CpuBackend)
    monkeypatch.setattr("sage_edge.runtime.backend.entry_points", lambda group: [gpu, cpu])
    assert precision_of(Settings(backend="gpu")) == "fp16"
    assert precision_of(Settings(backend="gpu", precision="fp32")) == "fp32"
    assert precision_of(Settings()) == "fp32"
