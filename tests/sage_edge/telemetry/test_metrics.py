from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sage_edge.telemetry import CONTENT_TYPE, Metrics
from sage_edge.telemetry.board import Board, BoardSampler
from tests.fakes import FakeClock
from tests.fixtures.sysfs_tree import lay_out
from tests.oracles.step_record import RawRecord, complete
from tests.sage_edge.telemetry.samples import raw_run, run_info


def final_record(energies=(2.0, 1.5, 1.25), **info):
    raw = RawRecord(*raw_run(energies)[-1].tolist())
    return complete(raw, run_info(**info), seq=0, unix_offset_ns=0, n_dE=2)


@pytest.fixture
def busy(tmp_path):
    """Metrics in which every series has a sample."""
    metrics = Metrics()
    metrics.describe_build(version="0.1.0", backend="onnxruntime-cpu")
    metrics.watch("vision", queue_length=lambda: 5, in_flight=lambda: 3, slots=8)
    metrics.request_shed("queue_full")
    metrics.replied(200)
    metrics.request_ended("vision", "answered")
    metrics.observe_request("vision", queue_ns=2_000_000, refine_ns=30_000_000)
    metrics.observe_tick("vision", 4_000_000, 3_000_000)
    metrics.run_halted(final_record())
    metrics.records_published("step", 2)
    metrics.records_published("ledger", 1)
    metrics.records_lost("mailbox", 2)
    sampler = BoardSampler(Board(lay_out("orin_nano", tmp_path)), period_s=1.0, clock=FakeClock())
    sampler.sample_once()
    metrics.board.watch(sampler)
    return metrics


def families(metrics):
    return {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}


def value(metrics, name, **labels):
    for family in families(metrics).values():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    raise KeyError(name, labels)


def test_what_is_reported_is_exposed(busy):
    assert value(busy, "sage_build_info", version="0.1.0", backend="onnxruntime-cpu") == 1
    assert value(busy, "sage_queue_length", plugin="vision") == 5
    assert value(busy, "sage_in_flight_requests", plugin="vision") == 3
    assert value(busy, "sage_slots", plugin="vision") == 8
    assert value(busy, "sage_shed_total", reason="queue_full") == 1
    assert value(busy, "sage_requests_total", plugin="vision", outcome="answered") == 1
    assert value(busy, "sage_queue_duration_seconds_sum", plugin="vision") == 0.002
    assert value(busy, "sage_refine_duration_seconds_sum", plugin="vision") == 0.03
    assert value(busy, "sage_request_duration_seconds_sum", plugin="vision") == 0.032
    assert value(busy, "sage_tick_duration_seconds_sum", plugin="vision") == 0.004
    assert value(busy, "sage_engine_duration_seconds_sum", plugin="vision") == 0.003
    assert value(busy, "sage_telemetry_records_total", kind="step") == 2
    assert value(busy, "sage_telemetry_records_total", kind="ledger") == 1
    assert value(busy, "sage_telemetry_lost_total", stage="mailbox") == 2


def test_a_halted_run_counts_its_steps_its_reason_and_its_energy(busy):
    busy.run_halted(final_record([2.0], power_w=10.0))
    assert value(busy, "sage_halts_total", plugin="vision", halt_reason="slope<eps") == 2
    assert value(busy, "sage_refine_steps_total", plugin="vision") == 2 + 0
    assert value(busy, "sage_steps_to_halt_count", plugin="vision") == 2
    assert value(busy, "sage_steps_to_halt_bucket", plugin="vision", le="1.0") == 1
    joules = (15.0 * 3 * 250.5 + 10.0 * 250.5) / 1e6  # watts x microseconds
    assert value(busy, "sage_refine_energy_joules_total", source="declared") == pytest.approx(joules)


def test_every_kind_of_loss_is_there_as_a_zero_before_it_happens():
    for stage in ("mailbox", "directory", "schema", "journal"):
        assert value(Metrics(), "sage_telemetry_lost_total", stage=stage) == 0


def test_two_services_in_one_process_share_no_numbers(busy):
    assert value(busy, "sage_telemetry_records_total", kind="step") == 2
    assert value(Metrics(), "sage_telemetry_records_total", kind="step") == 0


def test_names_follow_the_rules_of_prometheus(busy):
    for family in families(busy).values():
        assert re.fullmatch(r"sage_[a-z0-9_]+", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(total|count|sum|bucket|created)$|milli|micro|_ms|_us|_ns", family.name)
        is_counter = family.type == "counter"
        assert all(sample.name.endswith("_total") == is_counter for sample in family.samples)
        assert not any(sample.name.endswith("_created") for sample in family.samples)
        assert ("_seconds" in family.name) == family.name.endswith("_duration_seconds")
        labels = {label for sample in family.samples for label in sample.labels}
        assert labels <= {
            "plugin",
            "outcome",
            "reason",
            "halt_reason",
            "source",
            "kind",
            "stage",
            "version",
            "backend",
            "le",
            "status",
            "rail",
            "covers",
            "zone",
            "model",
            "l4t",
            "power_mode",
        }


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian: prometheus) is not installed")
def test_promtool_finds_nothing_to_complain_about(busy):
    check = subprocess.run(
        ["promtool", "check", "metrics"], input=busy.exposition(), capture_output=True, check=False
    )
    assert (check.returncode, check.stdout + check.stderr) == (0, b"")


def test_the_content_type_names_the_format_that_is_written(busy):
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
    assert busy.exposition().endswith(b"\n")
