"""docs/TELEMETRY.md against what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sage_edge.telemetry
from sage_edge.memory import MemoryBudget
from sage_edge.native import HALT_REASONS
from sage_edge.telemetry import Metrics, load_schema
from sage_edge.telemetry.metrics import LOSS_STAGES
from sage_edge.telemetry.records import KINDS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "TELEMETRY.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([^`\n]+)`", PAGE))
DEFS = load_schema()["$defs"]
FIELDS = {name for definition in DEFS.values() for name in definition.get("properties", {})}
FIELDS |= {
    name for group in ("trust", "budget") for name in DEFS["step_1_0"]["properties"][group]["properties"]
}


@pytest.mark.parametrize("field", sorted(FIELDS - {"trust", "budget"}))
def test_every_field_is_on_the_page(field):
    assert field in NAMED


@pytest.mark.parametrize("reason", [reason for reason in HALT_REASONS if reason])
def test_every_halt_reason_is_on_the_page(reason):
    assert reason in NAMED


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_on_the_page(kind):
    assert kind in NAMED


@pytest.mark.parametrize("stage", LOSS_STAGES)
def test_every_stage_of_loss_is_on_the_page(stage):
    assert stage in NAMED


def test_the_page_lists_exactly_the_metrics_that_there_are():
    metrics = Metrics()
    metrics.watch_memory(MemoryBudget(1 << 20))
    exposed = re.findall(r"^# TYPE (\S+)", metrics.exposition().decode(), re.MULTILINE)
    assert sorted(re.findall(r"^\| `(sage_\w+)`", PAGE, re.MULTILINE)) == sorted(exposed)


def test_the_page_lists_exactly_the_events_that_are_logged():
    room = Path(sage_edge.telemetry.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in room.rglob("*.py"))
    logged = set(re.findall(r"log\.\w+\(\s*\"(telemetry_\w+)", code))
    assert (
        set(re.findall(r"`(telemetry_(?:journal_|torn|record_|subscriber|drain|audit_|board_)\w+)`", PAGE))
        == logged
    )


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_the_example_runs(example):
    exec(compile(example, "docs/TELEMETRY.md", "exec"), {})  # noqa: S102 - our own page
