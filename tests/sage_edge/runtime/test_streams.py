"""The next request of a stream begins where the last one ended, if that has less energy."""

from __future__ import annotations

import numpy as np
import pytest

from sage_edge import Carried
from sage_edge.native import Ring
from sage_edge.runtime import CpuRefiner, Job, open_slots
from sage_edge.runtime.latent_slots import KEPT_STREAMS
from tests.fakes import FakeClock
from tests.quadratic import QuadraticPlugin

TARGET = np.full(6, 8.0, np.float32)


def keep_all(first, earlier):
    return Carried(earlier.first, earlier.z)


class Service:
    """Refines one request after the other, and tells in how many steps."""

    def __init__(self, carry_over=keep_all):
        plugin = QuadraticPlugin()
        plugin.carry_over = carry_over
        states = open_slots(plugin, capacity=4, threads=1, history=0)
        self.refiner = CpuRefiner(
            states, plugin.example, ring=Ring(256), plugin_number=0, now_ns=FakeClock().monotonic_ns
        )
        self.policy = plugin.halting.replace(K=1)
        self.runs = 0

    def job(self, target, stream_id, **options):
        self.runs += 1
        return Job(self.runs, np.asarray(target, np.float32), self.policy, stream_id=stream_id, **options)

    def finish(self, *jobs):
        ended = self.refiner.admit(jobs)
        while self.refiner.live:
            ended += self.refiner.tick()
        return {finished.job.run_id: finished for finished in ended}

    def steps(self, target, stream_id, **options):
        (finished,) = self.finish(self.job(target, stream_id, **options)).values()
        return finished.summary.step_idx


@pytest.fixture
def service():
    return Service()


def test_the_same_frame_again_is_done_with_its_first_step(service):
    anew = service.steps(TARGET, "camera")
    assert anew > 5
    assert service.steps(TARGET, "camera") == 1
    assert service.steps(TARGET, "camera") == 1


def test_an_answer_is_as_good_as_one_begun_anew(service):
    service.steps(TARGET, "camera")
    moved = TARGET + 0.5
    (warm,) = service.finish(service.job(moved, "camera")).values()
    (cold,) = service.finish(service.job(moved, None)).values()
    assert warm.summary.best_E <= cold.summary.best_E
    np.testing.assert_allclose(warm.answer.array, moved, atol=0.1)


def test_a_worse_start_is_not_taken(service):
    anew = service.steps(-TARGET, "other")
    service.steps(TARGET, "camera")
    assert service.steps(-TARGET, "camera") == anew


@pytest.mark.parametrize("energy", [np.nan, np.inf])
def test_a_start_without_an_energy_is_not_taken(energy):
    service = Service(lambda first, earlier: Carried(first, np.full_like(first, energy)))
    anew = service.steps(TARGET, "camera")
    assert service.steps(TARGET, "camera") == anew


def test_streams_are_apart_and_so_is_a_request_without_one(service):
    anew = service.steps(TARGET, "left")
    assert service.steps(TARGET, "right") == anew
    assert service.steps(TARGET, None) == anew
    assert service.steps(TARGET, "left") == 1


def test_the_stream_that_was_not_used_for_longest_is_forgotten(service):
    anew = service.steps(TARGET, "a")
    service.steps(TARGET, "b")
    service.steps(TARGET, "a")
    for number in range(KEPT_STREAMS - 1):
        service.steps(TARGET, f"c{number}")
    assert service.steps(TARGET, "a") == 1
    assert service.steps(TARGET, "b") == anew


def test_a_noisy_branch_begins_at_its_noise(service):
    service.steps(TARGET, "camera")
    assert service.steps(TARGET, "camera", seed=7) > 1


def test_a_slot_that_moves_takes_its_stream_along(service):
    """The first request ends first, so that the second one's row moves into the hole."""
    near, far = np.full(6, 0.01, np.float32), np.full(6, 90.0, np.float32)
    service.finish(service.job(near, "near"), service.job(far, "far"))
    assert service.steps(far, "far") == 1
    assert service.steps(near, "near") == 1


def test_slots_without_a_way_to_carry_begin_anew():
    service = Service(lambda first, earlier: None)
    anew = service.steps(TARGET, "camera")
    assert service.steps(TARGET, "camera") == anew
