"""Journals as a service would leave them, for the tests of the auditor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sage_edge.config import Settings
from sage_edge.irp.reputation import V3
from sage_edge.orchestrator.reputation import Reputation
from sage_edge.telemetry import Telemetry
from tests.fakes import FakeClock, FakeReader
from tests.sage_edge.telemetry.samples import START_NS, raw_run, run_info

#: A run of four states at 15 W and 250.5 us a state.
RUN_UATP = 15_030_000
VALUE = V3(3.0, 4.0, 0.9, 2, 3, 0.8, True)


class Ledger:
    """A plain twin of the ledger: what each operation does to the account, written out."""

    def __init__(self, initial_uatp: int) -> None:
        self.initial = self.available = initial_uatp
        self.locked = self.adp = 0
        self._seq = 0

    def operation(self, name: str, scene_id: str | None, amount: int, spent: int | None = None) -> Any:
        if name in ("lock", "extend", "overdraft"):
            self.available -= amount
            self.locked += amount
        elif name == "settle":
            self.locked -= amount
            self.adp += spent or 0
            self.available += amount - (spent or 0)
        elif name == "recharge":
            self.adp -= amount
            self.available += amount
        atp = max(self.available + self.locked, 0)
        fields = {
            "ledger_seq": self._seq,
            "operation": name,
            "scene_id": scene_id,
            "amount_uatp": amount,
            "spent_uatp": spent,
            "balance": {
                "initial_uatp": self.initial,
                "available_uatp": self.available,
                "locked_uatp": self.locked,
                "adp_uatp": self.adp,
            },
            "energy_ratio": atp / (atp + self.adp) if atp + self.adp else 0.5,
        }
        self._seq += 1
        return fields


def scene_events(ledger: Ledger, scene_id: str, runs: Sequence[int]) -> Iterator[tuple[str, Any]]:
    """What the orchestrator notes of a scene of these runs, the last of which costs more than foreseen."""
    held = RUN_UATP * len(runs) - 7
    yield "ledger", ledger.operation("lock", scene_id, held - 1000)
    yield "ledger", ledger.operation("extend", scene_id, 1000)
    limits = [
        {"run_id": run_id, "plugin": "vision", "limit_uatp": held // len(runs), "spent_uatp": 0}
        for run_id in runs
    ]
    yield (
        "allocation",
        {"scene_id": scene_id, "policy": "greedy", "cause": "admit", "limits": limits},
    )
    yield "ledger", ledger.operation("overdraft", scene_id, 7)
    spent = RUN_UATP * len(runs)
    yield "ledger", ledger.operation("settle", scene_id, spent, spent)
    members = [
        {
            "run_id": run_id,
            "request_id": f"{scene_id}-{run_id}",
            "plugin": "vision",
            "weight": 0.5,
            "E_norm_first": 1.0,
            "E_norm_last": 0.625,
            "steps": 3,
            "halt_reason": "slope<eps",
            "spent_uatp": RUN_UATP,
        }
        for run_id in runs
    ]
    yield (
        "scene",
        {
            "scene_id": scene_id,
            "members": members,
            "H_first": 0.5 * len(runs),
            "H_last": 0.3125 * len(runs),
            "K_H": 3,
            "eps_H": 1e-3,
            "global_halt": False,
            "budget_uatp": held,
        },
    )


def write_log(
    directory: Path, *, scenes: int = 2, name: str = "a", last_run_ends: bool = True, **settings: Any
):
    """One life of a service: a ledger, scenes of two runs each, updates of trust, checkpoints."""
    made = Settings(telemetry_dir=str(directory), audit_every=settings.pop("audit_every", 12), **settings)
    clock = FakeClock(monotonic_ns=START_NS)
    batches = [raw_run([2.0, 1.5, 1.25, 1.25], run_id=run) for run in range(2 * scenes)]
    if not last_run_ends:
        batches[-1] = batches[-1][:-1]
    telemetry = Telemetry([FakeReader(batches)], settings=made, clock=clock)
    for run in range(2 * scenes):
        scene_id = f"{name}{run // 2}"
        info = run_info(request_id=f"{scene_id}-{run}", scene_id=scene_id, trust_weight=0.5)
        telemetry.directory.open(run, info)
    ledger, reputation = Ledger(100_000_000), Reputation(None, entity_id="robot-7")
    events = [("ledger", ledger.operation("open", None, 100_000_000))]
    for scene in range(scenes):
        runs = (2 * scene, 2 * scene + 1)
        events += scene_events(ledger, f"{name}{scene}", runs)
        update = reputation.record(
            "vision",
            0.9,
            source="label",
            outcome="novel_success" if scene % 2 else None,
            v3_inputs=VALUE if scene % 2 else None,
            run_id=runs[0],
            request_id=f"{name}{scene}-{runs[0]}",
            now_unix_ns=clock.unix_ns() + scene,
        )
        events.append(("trust", update.fields()))
    events.append(("ledger", ledger.operation("recharge", None, ledger.adp)))
    for kind, fields in events:
        telemetry.note(kind, fields, time_ns=START_NS)
    reputation.close()
    telemetry.start()
    telemetry.close()
    return telemetry


def lines(directory: Path) -> list[bytes]:
    """The journal's lines, in all of its files, oldest first."""
    files = sorted(directory.glob("telemetry.jsonl.*"), key=lambda file: -int(file.suffix[1:]))
    contents = [file.read_bytes() for file in [*files, directory / "telemetry.jsonl"]]
    return b"".join(contents).splitlines(keepends=True)
