"""Frames over HTTP with every network a TensorRT plan and the loop on the device, both played by the CPU."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import httpx
import numpy as np
import pytest

from sage_edge import Settings, native
from sage_edge.errors import DeviceError, EngineError
from sage_edge.plugins.vision import VisionPlugin
from sage_edge.runtime import DeviceProgram, choose_loop
from sage_edge.runtime.building import BuildState
from sage_edge.runtime.plans import PlanStore
from sage_edge.runtime.tensorrt import TensorRTBackend
from tests.fake_tensorrt import fake_tensorrt
from tests.fakes import FakeClock
from tests.host_loop import HostLoops
from tests.sage_edge.service.conftest import Service

pytestmark = pytest.mark.skipif(not native.BUILT_WITH_CUDA, reason="needs a build with a CUDA compiler")
SLOTS = 2


class PlanLoops(HostLoops):
    """Loops whose step is a plan on the fake GPU, which sees their arrays and has their stream.

    Attributes:
        before_step: Called when the host waits for a step.
    """

    def __init__(self, gpu):
        super().__init__(time.monotonic_ns)
        self._gpu = gpu
        self.before_step = lambda: None

    def make_stream(self, loop):
        for array in loop.arrays:
            self._gpu.adopt(array)
        stream = self._gpu.stream()
        work = stream.synchronize
        stream.synchronize = lambda: (self.before_step(), work())
        return stream


@pytest.fixture(scope="module")
def on_plans(tmp_path_factory):
    """The vision plugin by TensorRT, and its GPU."""
    tensorrt, gpu = fake_tensorrt()
    store = PlanStore(tmp_path_factory.mktemp("engines"))
    backend = TensorRTBackend(tensorrt, gpu, store, FakeClock())
    plugin = VisionPlugin()
    recipes = {graph: recipe.for_slots(SLOTS) for graph, recipe in plugin.recipes("fp32").items()}
    backend.builder.build(list(recipes.values()), BuildState(FakeClock()))
    plugin.load({graph: backend.open(recipe) for graph, recipe in recipes.items()})
    return plugin, gpu


@contextmanager
def served(on_plans):
    plugin, gpu = on_plans
    loops = PlanLoops(gpu)
    settings = Settings(slots=SLOTS, queue_size=8, threads=1, telemetry_dir="")
    with Service({"vision": plugin}, settings, loops=loops) as service:
        yield service, loops


@pytest.fixture(scope="module")
def running(on_plans):
    with served(on_plans) as (service, loops):
        yield service, loops


def post(service, frame, **query):
    return service.client.post("/v1/refine/vision", content=frame, params=query)


def served_plugin(service):
    return httpx.get(f"{service.url}/v1/status").json()["plugins"]["vision"]


def test_the_program_has_the_types_and_sizes_of_the_plans(on_plans):
    program = DeviceProgram(on_plans[0], on_plans[0].step_engine)
    assert program.dtype == np.float32
    assert program.energy_terms == 64
    assert program.plugin is on_plans[0]


def test_a_plugin_on_the_host_has_no_program_for_the_device(vision):
    assert choose_loop(vision, HostLoops(lambda: 0)) == (None, "")


def test_a_width_without_a_plan_is_refused(on_plans):
    program = DeviceProgram(on_plans[0], on_plans[0].step_engine)
    view = native.TensorView(256, (7, 1), np.float32, device="cpu", owner=None)
    with pytest.raises(EngineError, match=r"expected a plan of width 7, got \[1, 2\]"):
        program.bind_step({"z": view})


def test_plans_of_a_type_that_the_loop_does_not_know_are_refused(on_plans):
    plugin = on_plans[0]

    class Odd:
        ends = {  # noqa: RUF012
            name: spec._replace(dtype=np.dtype(np.float64)) for name, spec in plugin.step_engine.ends.items()
        }

    with pytest.raises(EngineError, match="got float64"):
        DeviceProgram(plugin, Odd)


def test_a_posted_frame_is_answered_as_on_the_cpu(running, vision, nuclei_bytes, nuclei_frame):
    from sage_edge import refine

    service, loops = running
    reply = post(service, nuclei_bytes)
    expected = refine(vision, vision.prepare(nuclei_frame))
    assert reply.status_code == 200
    answer = reply.json()
    assert answer["backend"] == "tensorrt-10.3.0"
    assert answer["steps"] == expected.last.step_idx
    assert answer["halt_reason"] == expected.halt_reason
    assert answer["E"] == pytest.approx(min(expected.energies), rel=1e-4)
    assert loops.made[0].ticks >= answer["steps"]


def test_the_records_come_from_the_loop_itself(running, nuclei_bytes):
    service, _ = running
    answer = post(service, nuclei_bytes, max_steps=3, eps=0).json()

    def steps():
        lines = service.client.get("/v1/telemetry?limit=1000").text.splitlines()
        return [line for line in lines if answer["request_id"] in line]

    service.wait_for(lambda: len(steps()) == 4)


def test_the_status_tells_where_the_loop_is(running):
    found = served_plugin(running[0])
    assert found["loop"] == {"mode": "launches", "reason": "a test"}
    assert (found["can_rewind"], found["slots"]) == (False, SLOTS)


def test_a_deadline_and_an_energy_budget_end_it_with_the_best_answer_so_far(running, nuclei_bytes):
    service, _ = running
    late = post(service, nuclei_bytes, deadline_ms=10_000, eps=0, max_steps=2)
    assert late.json()["halt_reason"] == "max_steps"
    step_ms = served_plugin(service)["tick_ms"] + served_plugin(service)["encode_ms"]
    bounded = post(service, nuclei_bytes, eps=0, max_steps=64, atp=15 * 2.5 * step_ms)
    assert (bounded.status_code, bounded.json()["halt_reason"]) == (200, "budget")
    hurried = post(service, nuclei_bytes, eps=0, max_steps=64, deadline_ms=10 * step_ms)
    assert (hurried.status_code, hurried.json()["halt_reason"]) == (200, "timeout")


def test_two_frames_of_a_scene_share_the_loop_and_the_budget(running, nuclei_bytes):
    service, loops = running
    files = [("vision", ("a.webp", nuclei_bytes)), ("vision", ("b.webp", nuclei_bytes))]
    reply = service.client.post("/v1/scenes", files=files, data={"scene": '{"atp": 100000}'})
    assert reply.status_code == 200
    assert len(reply.json()["results"]) == 2
    assert loops.made[0].most_live == SLOTS


def test_more_requests_than_slots_are_all_answered(running, nuclei_bytes):
    service, _ = running
    replies = []
    callers = [
        threading.Thread(target=lambda: replies.append(post(service, nuclei_bytes, max_steps=2)))
        for _ in range(6)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [reply.status_code for reply in replies] == [200] * 6
    assert len({reply.json()["E"] for reply in replies}) == 1


def test_a_request_that_is_deleted_leaves_the_loop(running, nuclei_bytes):
    service, loops = running
    gate = threading.Event()
    loops.before_step = lambda: gate.wait(30)
    try:
        headers = {"Prefer": "respond-async"}
        queued = service.client.post(
            "/v1/refine/vision?eps=0&max_steps=64", content=nuclei_bytes, headers=headers
        )
        place = queued.headers["Location"]
        service.wait_for(lambda: served_plugin(service)["live"] == 1)
        assert service.client.delete(place).status_code == 204
    finally:
        loops.before_step = lambda: None
        gate.set()
    service.wait_for(lambda: served_plugin(service)["live"] == 0)
    assert service.client.get(place).status_code == 404


def test_a_device_that_fails_is_said_to_the_caller_and_to_whoever_asks_for_readiness(on_plans, nuclei_bytes):
    with served(on_plans) as (service, loops):
        loops.made[0].fault = DeviceError("cudaStreamQuery: a test")
        reply = post(service, nuclei_bytes)
        assert reply.status_code == 500
        assert reply.json()["error"]["code"] == "bad_engine"
        ready = service.client.get("/readyz")
        assert (ready.status_code, ready.json()["state"]) == (503, "failed")
