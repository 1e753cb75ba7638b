"""The ledger, recomputed operation by operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sage_edge.telemetry.audit.findings import Finding, LoggedRecord, differs

_Balance = dict[str, int]


@dataclass(slots=True)
class Account:
    """What one scene locked and settled.

    Attributes:
        first: Its first operation.
        locked_uatp: All that was ever locked for it.
        settled: Its settlement, once there is one.
    """

    first: LoggedRecord
    locked_uatp: int = 0
    settled: LoggedRecord | None = None


class LedgerBook:
    """Follows the operations of a ledger through the lives of its process.

    Attributes:
        findings: What does not follow from what was before.
        accounts: The scenes whose first operation is on file.
        last_opened: The ``open`` of each life, in order.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.accounts: dict[str, Account] = {}
        self._before: LoggedRecord | None = None

    def take(self, logged: LoggedRecord) -> None:
        """The next operation."""
        record = logged.record
        if record["operation"] != "open" and (before := self._followed(logged)):
            self._compare(logged, _after(before.record["balance"], record))
        elif record["operation"] == "open":
            initial = record["amount_uatp"]
            self._compare(logged, _balance(initial, initial, 0, 0))
        self._check_sums(logged)
        if record["scene_id"] is not None:
            self._take_scene(logged)
        self._before = logged

    def _followed(self, logged: LoggedRecord) -> LoggedRecord | None:
        """The operation before this one; None where it is not on file, which only a declared loss excuses.

        After a loss the one before on file may be of another life of the process.
        """
        before, number = self._before, logged.record["ledger_seq"]
        if before is None or logged.lost != before.lost:
            return None
        if number != before.record["ledger_seq"] + 1:
            expected = before.record["ledger_seq"] + 1
            self.findings.append(logged.finding(differs("ledger_seq", expected, number)))
            return None
        return before

    def _compare(self, logged: LoggedRecord, expected: _Balance) -> None:
        came = logged.record["balance"]
        if came != expected:
            self.findings.append(logged.finding(differs("balance", expected, came)))

    def _check_sums(self, logged: LoggedRecord) -> None:
        """What holds after every operation, whatever was before."""
        record, balance = logged.record, logged.record["balance"]
        total = balance["available_uatp"] + balance["locked_uatp"] + balance["adp_uatp"]
        if total != balance["initial_uatp"]:
            problem = differs("available + locked + adp", f"initial = {balance['initial_uatp']}", total)
            self.findings.append(logged.finding(problem))
        is_taken = record["operation"] in ("lock", "extend") and record["amount_uatp"] > 0
        if is_taken and balance["available_uatp"] < 0:
            problem = differs("available_uatp", "0 or more without an overdraft", balance["available_uatp"])
            self.findings.append(logged.finding(problem))
        if abs(record["energy_ratio"] - _energy_ratio(balance)) > 1e-9:
            problem = differs("energy_ratio", _energy_ratio(balance), record["energy_ratio"])
            self.findings.append(logged.finding(problem))

    def _take_scene(self, logged: LoggedRecord) -> None:
        record = logged.record
        scene_id, operation = record["scene_id"], record["operation"]
        account = self.accounts.get(scene_id)
        if operation == "lock" and account is None:
            account = self.accounts[scene_id] = Account(logged)
        if account is None:
            return  # it began before the files, or where records were lost
        if account.settled:
            self.findings.append(logged.finding(f"scene {scene_id}: expected nothing after its settlement"))
        elif operation == "settle":
            account.settled = logged
            self._check_settlement(logged, account)
        else:
            account.locked_uatp += record["amount_uatp"]

    def _check_settlement(self, logged: LoggedRecord, account: Account) -> None:
        record = logged.record
        if logged.lost == account.first.lost and record["amount_uatp"] != account.locked_uatp:
            problem = differs("amount_uatp", f"{account.locked_uatp} locked", record["amount_uatp"])
            self.findings.append(logged.finding(problem))
        if record["spent_uatp"] is None or record["spent_uatp"] > record["amount_uatp"]:
            problem = differs("spent_uatp", f"at most {record['amount_uatp']}", record["spent_uatp"])
            self.findings.append(logged.finding(problem))


def _balance(initial: int, available: int, locked: int, adp: int) -> _Balance:
    return {
        "initial_uatp": initial,
        "available_uatp": available,
        "locked_uatp": locked,
        "adp_uatp": adp,
    }


def _after(balance: Mapping[str, int], record: Mapping[str, object]) -> _Balance:
    """The account after an operation that is no ``open``; the rules are those of docs/TELEMETRY.md."""
    amount, spent = int(str(record["amount_uatp"])), int(str(record["spent_uatp"] or 0))
    available, locked, adp = {
        "lock": (-amount, amount, 0),
        "extend": (-amount, amount, 0),
        "overdraft": (-amount, amount, 0),
        "settle": (amount - spent, -amount, spent),
        "recharge": (amount, 0, -amount),
    }[str(record["operation"])]
    return _balance(
        balance["initial_uatp"],
        balance["available_uatp"] + available,
        balance["locked_uatp"] + locked,
        balance["adp_uatp"] + adp,
    )


def _energy_ratio(balance: Mapping[str, int]) -> float:
    atp = max(balance["available_uatp"] + balance["locked_uatp"], 0)
    whole = atp + balance["adp_uatp"]
    return atp / whole if whole else 0.5
