"""docs/CONTROL.md runs, and names what there is."""

from __future__ import annotations

import re
from pathlib import Path

from sage_edge.plugins.control_documents import _READERS

PAGE = (Path(__file__).parents[3] / "docs" / "CONTROL.md").read_text(encoding="utf-8")


def test_the_example_runs_and_plans_a_feasible_motion():
    [block] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(block, names)  # noqa: S102 # it is our own page
    assert names["made"].feasible
    assert names["second"].feasible
    assert abs(names["x"].sum() - 1.0) < 1e-3


def test_the_table_of_kinds_names_every_value_that_a_document_may_hold():
    rows = re.findall(r"^\| `(\w+)` \| (`.*?) \| (`.*?) \|", PAGE, re.MULTILINE)
    told = {
        kind: (set(re.findall(r"`(\w+)`", need)), set(re.findall(r"`(\w+)`", may)))
        for kind, need, may in rows
    }
    assert told == {
        kind: (set(required), set(optional)) for kind, (required, optional, _) in _READERS.items()
    }
