"""What the records say together: runs, scenes, the ledger and trust."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from sage_edge.irp.rules import contribution_to_H
from sage_edge.telemetry.audit.findings import Finding, LoggedRecord, differs
from sage_edge.telemetry.audit.ledger import Account, LedgerBook
from sage_edge.telemetry.audit.reputation import TrustBook
from sage_edge.telemetry.records import Record

#: Records that a crash can have taken while their scene's settlement was written already.
_IN_FLIGHT = 1024


@dataclass(slots=True)
class Run:
    """One run as its records tell it.

    Attributes:
        last: Its newest record.
        spent_uatp: Spent by then.
        spent_before_uatp: Spent before its last charge.
    """

    last: LoggedRecord
    spent_uatp: int = 0
    spent_before_uatp: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether its final record is on file."""
        return self.last.record["halt_reason"] is not None


@dataclass(slots=True)
class Books:
    """Takes the records in the order of the files, and compares what must agree.

    Attributes:
        findings: What does not agree.
        ended: Runs with a final record.
        cut_off: Runs without one, after which nothing of them came.
        spent_uatp: What the ended runs spent.
        power_modes: Modes of the board in which runs ended.
        hottest_C: Hottest zone at the end of a run; None where no board told.
        throttled: Runs at whose end the board was slowed down.
    """

    findings: list[Finding] = field(default_factory=list)
    ended: int = 0
    cut_off: int = 0
    spent_uatp: int = 0
    power_modes: set[str] = field(default_factory=set)
    hottest_C: float | None = None
    throttled: int = 0
    _ledger: LedgerBook = field(default_factory=LedgerBook)
    _trust: TrustBook = field(default_factory=TrustBook)
    _runs: dict[tuple[int, str], Run] = field(default_factory=dict)
    _scene_runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    _limits: dict[tuple[str, int], int] = field(default_factory=dict)
    _scenes: list[LoggedRecord] = field(default_factory=list)
    _ends: list[LoggedRecord] = field(default_factory=list)
    _newest: LoggedRecord | None = None

    def take(self, logged: LoggedRecord) -> None:
        """The next record."""
        kind = logged.record["kind"]
        if kind == "step":
            self._take_step(logged)
        elif kind == "ledger":
            if logged.record["operation"] == "open" and self._newest:
                self._ends.append(self._newest)
            self._ledger.take(logged)
        elif kind == "trust":
            self._trust.take(logged)
        elif kind == "allocation":
            self._take_allocation(logged)
        elif kind == "scene":
            self._scenes.append(logged)
        self._newest = logged

    def close(self) -> None:
        """Compare what can only be compared at the end."""
        if self._newest:
            self._ends.append(self._newest)
        for run in self._runs.values():
            self._count(run)
        for runs in self._scene_runs.values():
            for run in runs:
                self._check_limit(run)
        for scene_id, account in self._ledger.accounts.items():
            if account.settled:
                self._check_settlement(scene_id, account, account.settled)
        for logged in self._scenes:
            self._check_summary(logged)
        self.findings += self._ledger.findings + self._trust.findings

    def _take_step(self, logged: LoggedRecord) -> None:
        record = logged.record
        key = (record["run_id"], record["request_id"])
        run = self._runs.get(key)
        if run and run.has_ended:
            if record["step_idx"] > 0 or record["closing"]:
                self.findings.append(logged.finding(f"run {key[0]}: expected nothing after its final record"))
                return
            self._count(run)  # another life of the process gave the number again
            run = None
        if run is None:
            run = self._runs[key] = Run(logged)
            if record["scene_id"] is not None:
                self._scene_runs[record["scene_id"]].append(run)
        run.last = logged
        spent_uatp = round(record["budget"]["ATP_spent"] * 1e6)
        if spent_uatp != run.spent_uatp:
            run.spent_before_uatp, run.spent_uatp = run.spent_uatp, spent_uatp
        self._check_contribution(logged)

    def _check_contribution(self, logged: LoggedRecord) -> None:
        record = logged.record
        dE, came = record["dE"], record["trust"]["contribution_to_H"]
        expected = None if dE is None else contribution_to_H(record["trust_weight"], dE, record["E_scale"])
        if came != expected:
            self.findings.append(logged.finding(differs("trust.contribution_to_H", expected, came)))

    def _take_allocation(self, logged: LoggedRecord) -> None:
        """Limits include what was spent: together they stay within what is locked, or was spent already."""
        record = logged.record
        scene_id, limits = record["scene_id"], record["limits"]
        for limit in limits:
            key = (scene_id, limit["run_id"])
            self._limits[key] = max(self._limits.get(key, 0), limit["limit_uatp"])
        account = self._ledger.accounts.get(scene_id)
        if account and account.first.lost == logged.lost:
            most = max(account.locked_uatp, sum(limit["spent_uatp"] for limit in limits))
            total = sum(limit["limit_uatp"] for limit in limits)
            if total > most:
                self.findings.append(logged.finding(differs("sum of limit_uatp", f"at most {most}", total)))

    def _check_limit(self, run: Run) -> None:
        """A run may pass its limit in its last step only, when that cost more than was foreseen."""
        record = run.last.record
        limit_uatp = self._limits.get((record["scene_id"], record["run_id"]))
        if limit_uatp is not None and run.spent_before_uatp > limit_uatp + 1:  # it is kept as microseconds
            problem = differs(
                "ATP_spent before the last step", f"at most {limit_uatp} uATP", run.spent_before_uatp
            )
            self.findings.append(run.last.finding(problem))

    def _check_settlement(self, scene_id: str, account: Account, settled: LoggedRecord) -> None:
        """What a scene settled is what its runs spent, where all of them are on file to their end."""
        runs = self._scene_runs.get(scene_id, [])
        spent_uatp = sum(run.spent_uatp for run in runs)
        came = settled.record["spent_uatp"]
        if spent_uatp == came or not all(run.has_ended for run in runs):
            return
        newest = max([settled, *(run.last for run in runs)], key=lambda logged: logged.seq)
        is_lost = newest.lost > account.first.lost
        if is_lost or (spent_uatp < came and self._was_in_flight(settled, has_runs=bool(runs))):
            return
        self.findings.append(
            settled.finding(differs("spent_uatp", f"{spent_uatp}, which its runs spent", came))
        )

    def _was_in_flight(self, settled: LoggedRecord, *, has_runs: bool) -> bool:
        """Whether a crash followed so soon that it may have taken the records of runs that had ended."""
        end = next(end for end in self._ends if end.seq >= settled.seq)
        is_crash = end.record["kind"] != "checkpoint" or not has_runs
        return is_crash and end.seq - settled.seq < _IN_FLIGHT

    def _check_summary(self, logged: LoggedRecord) -> None:
        """A scene's record tells of its members what their own final records do."""
        for member in logged.record["members"]:
            run = self._runs.get((member["run_id"], member["request_id"]))
            if run is None or not run.has_ended or run.last.record["scene_id"] != logged.record["scene_id"]:
                continue
            for name, expected in _summary(run.last.record, run).items():
                if member[name] != expected:
                    problem = differs(f"run {member['run_id']}: {name}", expected, member[name])
                    self.findings.append(logged.finding(problem))

    def _count(self, run: Run) -> None:
        if run.has_ended:
            self.ended += 1
            self.spent_uatp += run.spent_uatp
            self._take_board(run.last.record.get("board") or {})
        else:
            self.cut_off += 1

    def _take_board(self, board: Record) -> None:
        """What the final record of a run tells of the board; versions before 1.2 tell nothing."""
        if mode := board.get("power_mode"):
            self.power_modes.add(mode)
        if (temp_C := board.get("temp_C")) is not None:
            self.hottest_C = max(temp_C, self.hottest_C if self.hottest_C is not None else temp_C)
        self.throttled += board.get("throttled") is True


def _summary(final: Record, run: Run) -> dict[str, object]:
    return {
        "plugin": final["plugin"],
        "steps": final["steps"],
        "halt_reason": final.get("halt_cause", final["halt_reason"]),  # one field until version 1.4
        "spent_uatp": run.spent_uatp,
    }
