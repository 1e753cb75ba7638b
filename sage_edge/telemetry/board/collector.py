"""The newest sample of the board in Prometheus's format; what is absent has no sample."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from sage_edge.telemetry.board.reader import BoardSample
from sage_edge.telemetry.board.sampler import BoardSampler

#: Metric, what it says, and the sample's attribute.
_GAUGES = (
    ("sage_gpu_utilization_ratio", "Share of time that the GPU was busy.", "gpu_load"),
    ("sage_gpu_frequency_hertz", "Clock of the GPU.", "gpu_frequency_hz"),
    ("sage_memory_bytes", "Memory of the board.", "memory_bytes"),
    ("sage_memory_available_bytes", "Memory to be had without swapping.", "memory_available_bytes"),
    ("sage_swap_bytes", "Swap space.", "swap_bytes"),
    ("sage_swap_free_bytes", "Swap space that is unused.", "swap_free_bytes"),
    ("sage_throttled", "Whether the board is slowed down against heat or current.", "throttled"),
)


class BoardCollector(Collector):
    """Turns the newest sample into metrics whenever they are read.

    Threads: any.
    """

    def __init__(self) -> None:
        self._sampler: BoardSampler | None = None

    def watch(self, sampler: BoardSampler) -> None:
        """Take the samples from there."""
        self._sampler = sampler

    def collect(self) -> Iterator[Metric]:
        """Every family, with as many samples as the board has values."""
        sample = self._sampler.newest if self._sampler else None
        yield _energy(self._sampler)
        yield _info(self._sampler, sample)
        yield from _labelled(sample)
        for name, text, attribute in _GAUGES:
            gauge = GaugeMetricFamily(name, text)
            value = getattr(sample, attribute, None)
            if value is not None:
                gauge.add_metric([], float(value))
            yield gauge
        events = CounterMetricFamily("sage_over_current_events", "Over-current events since boot.")
        if sample is not None and sample.over_current_events is not None:
            events.add_metric([], sample.over_current_events)
        yield events


def _energy(sampler: BoardSampler | None) -> Metric:
    family = CounterMetricFamily(
        "sage_board_energy_joules",
        "Energy since the start, by sensor and by what it covers.",
        labels=["source", "covers"],
    )
    meter = sampler.energy if sampler else None
    if meter and (energy_uj := meter.energy_uj()) is not None:
        family.add_metric([meter.source, meter.covers], energy_uj / 1e6)
    return family


def _info(sampler: BoardSampler | None, sample: BoardSample | None) -> Metric:
    family = InfoMetricFamily("sage_board", "The board, its release and its power mode, as far as it says.")
    if sampler and sample:
        board = sampler.board
        known = {"model": board.model, "l4t": board.l4t, "power_mode": sample.power_mode}
        family.add_metric([], {name: value for name, value in known.items() if value})
    return family


def _labelled(sample: BoardSample | None) -> Iterator[Metric]:
    rails = GaugeMetricFamily(
        "sage_rail_power_watts",
        "Power of each rail; some rails feed others, so they do not add up.",
        labels=["rail", "source"],
    )
    zones = GaugeMetricFamily("sage_temperature_celsius", "Temperature of each zone.", labels=["zone"])
    if sample:
        for rail, power_mw in sample.rails_mw.items():
            rails.add_metric(rail, power_mw / 1000)
        for zone, degrees_c in sample.temperatures_c.items():
            zones.add_metric([zone], degrees_c)
    yield rails
    yield zones
