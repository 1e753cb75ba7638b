"""Trust updates, recomputed from the inputs that they record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from math import isclose
from typing import Any

from sage_edge.errors import SageError
from sage_edge.irp.lrc import LRC
from sage_edge.irp.reputation import T3, V3, Change, rule_of, total_change
from sage_edge.telemetry.audit.findings import Finding, LoggedRecord, differs
from sage_edge.telemetry.records import Record

_V3_INPUTS = [logged.name for logged in fields(V3)]
_LRC_INPUTS = [logged.name for logged in fields(LRC)]


class TrustBook:
    """Follows the trust of each (entity, role).

    Attributes:
        findings: What does not follow from its inputs, or from the update before.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._newest: dict[tuple[str, str], Record] = {}

    def take(self, logged: LoggedRecord) -> None:
        """The next update."""
        record = logged.record
        try:
            problems = [*_t3_problems(record), *_v3_problems(record), *_lrc_problems(record)]
        except SageError as exc:
            problems = [str(exc)]
        problems += self._continuity_problems(record)
        self.findings += [logged.finding(problem) for problem in problems]

    def _continuity_problems(self, record: Record) -> Iterator[str]:
        """An update goes on from the one before it, if that is on file."""
        role = (record["entity_id"], record["role"])
        before = self._newest.get(role)
        self._newest[role] = record
        if before and before["update_n"] + 1 == record["update_n"]:
            for side, change in record["t3"].items():
                yield from _compare(f"t3.{side}.from", before["t3"][side]["to"], change["from"])


def _t3_problems(record: Record) -> Iterator[str]:
    t3 = record["t3"]
    before = T3(*(t3[side]["from"] for side in T3._fields))
    change = total_change(
        record["quality"], record["outcome_class"], record["repetition_n"], record["idle_months"]
    )
    after = before.plus(Change(*change))
    for side, by, to in zip(T3._fields, change, after, strict=True):
        yield from _compare(f"t3.{side}.change", by, t3[side]["change"])
        yield from _compare(f"t3.{side}.to", to, t3[side]["to"])
    yield from _compare("weight_before", before.weight, record["weight_before"])
    yield from _compare("weight_after", after.weight, record["weight_after"])
    yield from _compare("rule_id", rule_of(record["outcome_class"]), record["rule_id"])
    yield from _compare("is_success", record["quality"] >= record["lrc"]["R"], record["is_success"])


def _v3_problems(record: Record) -> Iterator[str]:
    if v3 := record["v3"]:
        yield from _compare_all("v3", V3(**{name: v3[name] for name in _V3_INPUTS}).fields(), v3)


def _lrc_problems(record: Record) -> Iterator[str]:
    lrc = record["lrc"]
    yield from _compare_all("lrc", LRC(**{name: lrc[name] for name in _LRC_INPUTS}).fields(), lrc)


def _compare_all(name: str, expected: Mapping[str, Any], came: Mapping[str, Any]) -> Iterator[str]:
    for key, value in expected.items():
        yield from _compare(f"{name}.{key}", value, came[key])


def _compare(name: str, expected: Any, came: Any) -> Iterator[str]:
    is_number = isinstance(expected, float)
    if not (isclose(expected, came, rel_tol=1e-9, abs_tol=1e-12) if is_number else expected == came):
        yield differs(name, expected, came)
