"""What plugins have earned: trust per (entity, role), learned from measured quality alone, kept in SQLite."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sage_edge.config import Settings
from sage_edge.errors import ConfigError, ParameterError
from sage_edge.irp.lrc import LRC, LRC_PROFILES
from sage_edge.irp.reputation import NEW_T3, T3, V3, Change, Outcome, rule_of, total_change

log = logging.getLogger(__name__)

#: What a quality was measured against.
Source: TypeAlias = Literal["label", "audit"]

FILE_NAME = "reputation.sqlite"
#: Updates kept of each (entity, role).
HISTORY_UPDATES = 10_000
#: Updates of one role, source and outcome within this time are similar.
SIMILAR_WITHIN_NS = 3_600 * 10**9

_MONTH_NS = 30 * 24 * 3_600 * 10**9
#: 2000-01-01: a clock that tells less was not set; boards without a battery start in 1970.
_CLOCK_IS_SET_NS = 946_684_800 * 10**9
_VERSION = 1
#: How long an update waits for another process.
_BUSY_MS = 5000
_SCHEMA = """
CREATE TABLE trust (
  entity_id TEXT, role TEXT, talent REAL, training REAL, temperament REAL, update_n INTEGER, time_ns INTEGER,
  PRIMARY KEY (entity_id, role)
) WITHOUT ROWID;
CREATE TABLE history (
  entity_id TEXT, role TEXT, update_n INTEGER, time_ns INTEGER, run_id INTEGER, request_id TEXT,
  quality REAL, source TEXT, outcome TEXT, talent REAL, training REAL, temperament REAL,
  PRIMARY KEY (entity_id, role, update_n)
) WITHOUT ROWID;
CREATE INDEX history_by_time ON history (entity_id, role, time_ns);
"""


@dataclass(frozen=True, slots=True)
class TrustUpdate:
    """One update, with all that it was computed from.

    Attributes:
        role: Who was judged, such as a plugin's name.
        before, after: Trust before and after.
        change: What time and the rule added, before it was clamped.
        quality: Measured, in [0, 1].
        source: What it was measured against.
        outcome: Row of the outcome table that was applied; None where the quality rule was.
        update_n: Number of the update of this role, from 1.
        repetition_n: It was the n-th similar one.
        idle_months: Time since the one before.
        v3: Value of the result, if its inputs are known.
        lrc: The budget policy in force.
    """

    role: str
    run_id: int
    request_id: str
    before: T3
    after: T3
    change: Change
    quality: float
    source: Source
    outcome: Outcome | None
    update_n: int
    repetition_n: int
    idle_months: float
    v3: V3 | None
    lrc: LRC

    @property
    def is_success(self) -> bool:
        """Whether the quality reaches the policy's R."""
        return self.quality >= self.lrc.R

    def fields(self) -> dict[str, Any]:
        """The fields of a ``trust`` record: ``telemetry.note("trust", update.fields(), time_ns=...)``."""
        sides = zip(T3._fields, self.before, self.change, self.after, strict=True)
        return {
            "role": self.role,
            "run_id": self.run_id,
            "request_id": self.request_id,
            "t3": {side: {"from": old, "change": by, "to": new} for side, old, by, new in sides},
            "quality": self.quality,
            "quality_source": self.source,
            "is_success": self.is_success,
            "outcome_class": self.outcome,
            "rule_id": rule_of(self.outcome),
            "update_n": self.update_n,
            "repetition_n": self.repetition_n,
            "idle_months": self.idle_months,
            "weight_before": self.before.weight,
            "weight_after": self.after.weight,
            "v3": self.v3.fields() if self.v3 else None,
            "lrc": self.lrc.fields(),
        }


def open_reputation(settings: Settings) -> Reputation:
    """The reputation that the settings name.

    Where none is named it is kept beside the journal. Where that cannot be, since the disk is full, another
    process holds the file or it is damaged, trust is kept in memory, as the journal's loss costs the records
    alone; the file stays as it is, and the log and ``is_kept`` say so.

    Raises:
        ConfigError: The file that ``reputation_file`` names cannot be used.
    """

    def kept(path: Path | None, *, is_kept: bool = True) -> Reputation:
        lrc = LRC_PROFILES[settings.lrc_profile]
        return Reputation(path, entity_id=settings.entity_id, lrc=lrc, is_kept=is_kept)

    if settings.reputation_file:
        return kept(Path(settings.reputation_file))
    if not settings.telemetry_dir:
        return kept(None)
    try:
        return kept(_beside(Path(settings.telemetry_dir)))
    except (OSError, ConfigError) as exc:
        log.error("reputation_not_kept error=%r action=keep_in_memory", str(exc))
        return kept(None, is_kept=False)


def _idle_months(last_ns: int, now_ns: int) -> float:
    """Time between two updates; none where the clock was set back, or was not set at the first of them."""
    return max(now_ns - last_ns, 0) / _MONTH_NS if last_ns >= _CLOCK_IS_SET_NS else 0.0


def _beside(telemetry_dir: Path) -> Path:
    telemetry_dir.mkdir(parents=True, exist_ok=True)
    if not os.access(telemetry_dir, os.W_OK):
        raise PermissionError(f"{telemetry_dir} cannot be written to")
    return telemetry_dir / FILE_NAME


class Reputation:
    """Trust of one entity in its roles.

    A new role starts at 0.3 on each side, so with the weight 0.3. Weights reach all of [0.1, 1].
    An update is one transaction: it happens wholly or not at all, and outlives the process; a power cut
    can take the last ones. Several processes may share a file.

    Threads: every method from any thread.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        entity_id: str = "sage-edge",
        lrc: LRC = LRC_PROFILES["edge"],
        is_kept: bool = True,
    ) -> None:
        """Open the file; it is made, with its folder, when there is none.

        Args:
            path: None to keep trust in memory.
            entity_id: Who is trusted.
            lrc: The budget policy in force.
            is_kept: False where it was to be kept in a file that could not be used.

        Raises:
            ConfigError: The file cannot be used, or is something else.
        """
        self.lrc = lrc
        self.is_kept = is_kept
        self._entity_id = entity_id
        self._lock = threading.Lock()
        try:
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as exc:
            raise ConfigError(f"reputation_file: {path}: cannot be opened: {exc}") from exc
        try:
            self._prepare()
        except (sqlite3.Error, ConfigError) as exc:
            self._db.close()
            raise ConfigError(
                f"reputation_file: {path}: expected a reputation, got: {exc}; move it away"
            ) from exc

    def weight(self, role: str) -> float:
        """clip(T3 composite, 0.1, 1) of a role, as it was after its last update."""
        with self._lock:
            return self._trust(role)[0].weight

    def trust(self, role: str) -> T3:
        """The three sides of a role's trust."""
        with self._lock:
            return self._trust(role)[0]

    def record(
        self,
        role: str,
        quality: float,
        *,
        source: Source,
        outcome: Outcome | None = None,
        v3_inputs: V3 | None = None,
        run_id: int,
        request_id: str,
        now_unix_ns: int,
    ) -> TrustUpdate:
        """Update a role's trust by one run that was measured.

        Args:
            role: Who is judged.
            quality: Measured quality in [0, 1].
            source: ``label`` for ground truth, ``audit`` for a later check; never the run's own convergence.
            outcome: Row of the outcome table to go by; None for the quality rule.
            v3_inputs: What the value of the result is computed from, if that is known.
            run_id: The run.
            request_id: Its request.
            now_unix_ns: Unix time; one before the last update counts as that.

        Raises:
            ParameterError: A value is out of its range.
            ConfigError: The file refuses, or another process holds it for more than five seconds.
        """
        if source not in ("label", "audit"):
            raise ParameterError(f"source: expected label or audit, got {source!r}")
        total_change(quality, outcome, 1, 0.0)  # refuses what is out of range before anything is locked
        with self._lock, self._transaction():
            before, last_n, last_ns = self._trust(role)
            idle_months = _idle_months(last_ns, now_unix_ns) if last_n else 0.0
            repetition_n = 1 + self._similar(role, source, outcome, now_unix_ns - SIMILAR_WITHIN_NS)
            change = total_change(quality, outcome, repetition_n, idle_months)
            update = TrustUpdate(
                role=role,
                run_id=run_id,
                request_id=request_id,
                before=before,
                after=before.plus(change),
                change=change,
                quality=quality,
                source=source,
                outcome=outcome,
                update_n=last_n + 1,
                repetition_n=repetition_n,
                idle_months=idle_months,
                v3=v3_inputs,
                lrc=self.lrc,
            )
            self._write(update, max(now_unix_ns, last_ns))
        return update

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    def _prepare(self) -> None:
        self._db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0 and not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise ConfigError(f"version {version}, where {_VERSION} is known")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:  # commits, or rolls back on an error
                yield
        except sqlite3.Error as exc:
            raise ConfigError(f"reputation_file: cannot be used: {exc}") from exc

    def _trust(self, role: str) -> tuple[T3, int, int]:
        """Trust of a role, the number of its last update (0 before the first), and its Unix time."""
        row = self._db.execute(
            "SELECT talent, training, temperament, update_n, time_ns FROM trust"
            " WHERE entity_id = ? AND role = ?",
            (self._entity_id, role),
        ).fetchone()
        return (T3(*row[:3]), row[3], row[4]) if row else (NEW_T3, 0, 0)

    def _similar(self, role: str, source: Source, outcome: Outcome | None, since_ns: int) -> int:
        (count,) = self._db.execute(
            "SELECT count(*) FROM history WHERE entity_id = ? AND role = ? AND time_ns > ?"
            " AND source = ? AND outcome IS ?",
            (self._entity_id, role, since_ns, source, outcome),
        ).fetchone()
        return int(count)

    def _write(self, update: TrustUpdate, time_ns: int) -> None:
        key = (self._entity_id, update.role)
        self._db.execute(
            "INSERT OR REPLACE INTO trust VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, *update.after, update.update_n, time_ns),
        )
        self._db.execute(
            "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *key,
                update.update_n,
                time_ns,
                update.run_id,
                update.request_id,
                update.quality,
                update.source,
                update.outcome,
                *update.after,
            ),
        )
        self._db.execute(
            "DELETE FROM history WHERE entity_id = ? AND role = ? AND update_n <= ?",
            (*key, update.update_n - HISTORY_UPDATES),
        )
