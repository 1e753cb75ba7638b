"""The orchestrator over the loop on the device, which a twin on the CPU stands in for."""

from __future__ import annotations

import pytest

from sage_edge import HRM, Budget, Settings, native
from sage_edge.errors import CancelledRequestError, DeviceError, EngineError
from sage_edge.orchestrator import Entry
from tests.fakes import FakeClock
from tests.host_loop import HostLoops
from tests.quadratic import DeviceQuadratic
from tests.sage_edge.orchestrator.test_audited import Audited
from tests.sage_edge.orchestrator.test_hrm import Plant, answer, frame

pytestmark = pytest.mark.skipif(not native.BUILT_WITH_CUDA, reason="needs a build with a CUDA compiler")
#: At 1 W a step of one slot costs 1 ATP (1 ms).
WATT = 1.0
ENDLESS = Budget(eps=0.0, max_steps=64)


class DevicePlant(Plant, DeviceQuadratic):
    """A plant whose steps take 1 ms and fail when told to, on the device."""


def open_on_device(clock, why_not="", **options):
    plants = {name: DevicePlant(name, clock) for name in ("left", "right")}
    chosen = {"slots": 3, "queue_size": 6, "telemetry_dir": "", "power_w": WATT, "telemetry_memory": 200_000}
    loops = HostLoops(clock.monotonic_ns, why_not)
    hrm = HRM(Settings(**{**chosen, **options}), plants, clock, loops)
    hrm.warm_up()
    return hrm, plants, loops


class OnDevice(Audited):
    """The same random interleavings, and the same auditor."""

    def open(self, **options):
        hrm, plants, _ = open_on_device(self.clock, **options)
        return hrm, plants

    #: Beside the slots as many may wait on the device.
    capacity = 6


OnDevice.TestCase.settings = Audited.TestCase.settings
TestOnDevice = OnDevice.TestCase


def test_a_request_is_answered_and_its_energy_is_what_its_records_say():
    hrm, _, loops = open_on_device(FakeClock())
    result = answer(hrm, hrm.submit("left", frame(40.0)))
    hrm.close()
    assert result.run.halt_reason == "slope<eps"
    records, _ = hrm.telemetry.hub.after(-1, 10**6)
    steps = [r for r in records if r["kind"] == "step"]
    assert [r["step_idx"] for r in steps] == list(range(result.run.step_idx + 1))
    assert steps[-1]["budget"]["ATP_spent"] == pytest.approx(result.ATP_spent, abs=1e-6)
    assert loops.made[0].ticks == result.run.step_idx


def test_an_energy_budget_is_passed_by_no_more_than_a_step():
    hrm, _, _ = open_on_device(FakeClock())
    for atp in (1.5, 3.0, 7.25):
        result = answer(hrm, hrm.submit("left", frame(40.0), Budget(atp=atp, eps=0.0)))
        assert result.run.halt_reason == "budget"
        assert atp - 2.0 < result.ATP_spent <= atp
    hrm.close()


def test_a_deadline_gets_the_best_answer_until_then():
    clock = FakeClock()
    hrm, _, _ = open_on_device(clock)
    start_ns = clock.monotonic_ns()
    result = answer(hrm, hrm.submit("left", frame(90.0), Budget(eps=0.0, max_steps=64, deadline_ms=12.0)))
    assert result.run.halt_reason == "timeout"
    assert result.run.step_idx > 3
    assert clock.monotonic_ns() - start_ns <= 12_000_000
    hrm.close()


def test_a_request_that_is_given_up_is_out_before_the_next_step():
    hrm, _, loops = open_on_device(FakeClock())
    ticket = hrm.submit("left", frame(40.0), ENDLESS)
    hrm.serve_once()
    ticks = loops.made[0].ticks
    ticket.cancel()
    hrm.serve_once()
    with pytest.raises(CancelledRequestError):
        ticket.future.result(timeout=0)
    assert loops.made[0].ticks == ticks
    hrm.close()


def test_what_one_member_of_a_scene_leaves_lets_the_other_go_further():
    hrm, _, _ = open_on_device(FakeClock())
    entries = [Entry("left", frame(0.0)), Entry("right", frame(80.0), Budget(eps=0.0))]
    scene, tickets = hrm.submit_scene(entries, Budget(atp=12.0), policy="equal")
    early, late = [answer(hrm, ticket) for ticket in tickets]
    assert early.run.halt_reason == "slope<eps"
    assert late.ATP_spent > 6.0
    assert scene.spent_uatp <= 13_000_000  # a step beyond it: a limit may move while one runs
    hrm.close()


def test_a_scene_halts_together_once_its_energy_has_settled():
    hrm, _, _ = open_on_device(FakeClock(), scene_eps=1e-2, scene_steps=2)
    entries = [Entry("left", frame(9.0), Budget(eps=0.0)), Entry("right", frame(5.0), Budget(eps=0.0))]
    scene, tickets = hrm.submit_scene(entries)
    results = [answer(hrm, ticket) for ticket in tickets]
    assert {result.run.halt_reason for result in results} == {"global_halt"}
    assert len(scene.H) == sum(result.run.step_idx + 1 for result in results)
    hrm.close()


def test_branches_share_a_request_and_the_lowest_energy_answers():
    hrm, _, _ = open_on_device(FakeClock(), lrc_profile="learning")
    result = answer(hrm, hrm.submit("left", frame(2.0), Budget(branches=3, max_steps=1, eps=0.0)))
    assert result.branches > 1
    hrm.close()
    records, _ = hrm.telemetry.hub.after(-1, 10**6)
    energies = [r["E"] for r in records if r["kind"] == "step"]
    assert result.run.best_E == pytest.approx(min(energies), rel=1e-6)


def test_a_step_that_fails_fails_those_who_were_there_and_the_next_ones_are_served():
    hrm, plants, _ = open_on_device(FakeClock())
    ticket = hrm.submit("left", frame(40.0), ENDLESS)
    hrm.serve_once()
    plants["left"].fault = "crash"
    hrm.serve_once()
    with pytest.raises(EngineError, match="a step failed"):
        ticket.future.result(timeout=0)
    assert answer(hrm, hrm.submit("left", frame(4.0))).run.halt_reason == "slope<eps"
    hrm.close()


def test_a_scene_tells_of_a_run_that_waited_when_a_step_failed_what_its_record_does():
    hrm, plants, _ = open_on_device(FakeClock())
    for _ in range(3):
        hrm.submit("right", frame(40.0), ENDLESS)
    hrm.submit_scene([Entry("right", frame(30.0), Budget(max_steps=0))])
    hrm.serve_once()
    plants["right"].fault = "crash"
    hrm.serve_once()
    hrm.close()
    records, _ = hrm.telemetry.hub.after(-1, 10**6)
    (told,) = [r["members"][0] for r in records if r["kind"] == "scene"][-1:]
    (final,) = [
        r for r in records if r["kind"] == "step" and r["run_id"] == told["run_id"] and r["halt_reason"]
    ]
    assert told["halt_reason"] == final["halt_reason"] == "max_steps"


def test_a_device_that_fails_answers_everybody_with_an_error():
    hrm, _, loops = open_on_device(FakeClock())
    tickets = [hrm.submit("left", frame(40.0), ENDLESS) for _ in range(2)]
    hrm.serve_once()
    loops.made[0].fault = DeviceError("cudaStreamQuery: a test")
    hrm.serve_once()
    tickets.append(hrm.submit("left", frame(4.0)))
    hrm.serve_once()
    for ticket in tickets:
        with pytest.raises(EngineError):
            ticket.future.result(timeout=0)
    assert hrm._served["left"].refiner.has_failed
    assert not hrm._served["right"].refiner.has_failed
    hrm.close()


def test_the_status_names_the_mode_of_the_loop_and_the_reason():
    hrm, _, _ = open_on_device(FakeClock())
    lane = hrm.status()["left"]
    assert (lane["loop"], lane["can_rewind"]) == ({"mode": "launches", "reason": "a test"}, False)
    assert lane["tick_ms"] == pytest.approx(1.0)
    hrm.close()


def test_a_plugin_whose_loop_cannot_be_on_the_device_is_served_from_the_host_and_says_why():
    hrm, _, loops = open_on_device(FakeClock(), why_not="this build is without CUDA")
    assert hrm.status()["left"]["loop"] == {"mode": "host", "reason": "this build is without CUDA"}
    assert answer(hrm, hrm.submit("left", frame(4.0))).run.halt_reason == "slope<eps"
    assert loops.made == []
    hrm.close()
