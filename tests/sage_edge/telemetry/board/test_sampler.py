"""The sampling thread, and what Prometheus sees of it."""

from __future__ import annotations

import threading

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from sage_edge.clock import SystemClock
from sage_edge.telemetry import Metrics
from sage_edge.telemetry.board import Board, BoardCollector, BoardSampler
from tests.fakes import FakeClock
from tests.fixtures.sysfs_tree import lay_out, put

ORDER = ("rail", "source", "covers", "zone", "model", "l4t", "power_mode")


def sampler_of(root, clock=None, period_s=1.0):
    return BoardSampler(Board(root), period_s=period_s, clock=clock or FakeClock())


def exposed(sampler):
    metrics = Metrics()
    if sampler:
        metrics.board.watch(sampler)
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (s.name, *(s.labels[label] for label in ORDER if label in s.labels)): s.value
        for family in families
        for s in family.samples
    }


def test_a_board_is_exposed_with_source_and_coverage(tmp_path):
    clock = FakeClock()
    sampler = sampler_of(lay_out("orin_nano", tmp_path), clock)
    sampler.sample_once()
    clock.advance(2)
    values = exposed(sampler)
    assert values["sage_board_energy_joules_total", "ina3221:VDD_IN", "module"] == pytest.approx(2 * 6.21984)
    assert values["sage_rail_power_watts", "VDD_SOC", "ina3221"] == pytest.approx(1.482368)
    assert values["sage_temperature_celsius", "tj-thermal"] == 52.75
    assert values[("sage_gpu_utilization_ratio",)] == 0.137
    assert values[("sage_throttled",)] == 0
    assert values[("sage_over_current_events_total",)] == 7
    model = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert values["sage_board_info", model, "36.4.3", "15W"] == 1


def test_what_a_board_does_not_tell_has_no_sample(tmp_path):
    put(tmp_path, "proc/meminfo", "MemTotal:       2048 kB")
    sampler = sampler_of(tmp_path)
    sampler.sample_once()
    told = set(exposed(sampler)) - set(exposed(None))
    assert told == {("sage_memory_bytes",), ("sage_board_info",)}


def test_nothing_is_exposed_before_the_first_sample(tmp_path):
    registry = CollectorRegistry()
    collector = BoardCollector()
    collector.watch(sampler_of(lay_out("orin_nano", tmp_path)))
    registry.register(collector)
    assert [sample for family in registry.collect() for sample in family.samples] == []


class Counting(Board):
    """A board that tells a test how often it was looked at, and fails once."""

    def __init__(self, root, wanted):
        super().__init__(root)
        self._wanted, self._count = wanted, 0
        self.is_done = threading.Event()

    def sample(self):
        self._count += 1
        if self._count == self._wanted:
            self.is_done.set()
        if self._count == 2:
            raise ValueError("torn")
        return super().sample()


def test_the_thread_goes_on_after_a_failed_look_and_ends_when_told(tmp_path, caplog):
    board = Counting(lay_out("orin_nx", tmp_path), wanted=4)
    sampler = BoardSampler(board, period_s=0.001, clock=SystemClock())
    before = set(threading.enumerate())
    sampler.start()
    assert board.is_done.wait(10)
    sampler.stop()
    assert set(threading.enumerate()) == before
    assert sampler.newest.power_mode == "25W"
    assert "telemetry_board_failed" in caplog.text
