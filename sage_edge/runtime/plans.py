"""The folder of built plans: each beside a JSON sidecar that says what it was built from and for.

Invariants, also after a kill at any moment:

1. A sidecar is replaced in one piece, and only once the plan that it describes is on disk in full.
2. A plan is handed out only when its digest is that of its sidecar and every field of its key fits.
3. Builders of one folder take turns (a lock file), since two at a time would also spoil each other's timings.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from glob import escape
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from sage_edge.errors import EngineError

FORMAT = 1
#: What a caller who finds no usable plan should run.
REMEDY = "run `sage-edge engines build`"
#: Differences in these fields mean another machine; in the others, another model or another way to build.
_MACHINE = ("tensorrt", "sm")

State = Literal["ready", "whole", "missing", "stale", "foreign", "damaged"]


@dataclass(frozen=True, slots=True)
class PlanKey:
    """Everything that a plan depends on.

    Attributes:
        onnx_sha256: Digest of the network, which also fixes every shape but the batch.
        precision: "fp32" or "fp16".
        width: The batch width.
        tensorrt: Module and version, such as "tensorrt-10.3.0".
        sm: The GPU's compute capability, such as "8.7".
        builder: Version of our own way to build.
    """

    onnx_sha256: str
    precision: str
    width: int
    tensorrt: str
    sm: str
    builder: int

    @property
    def digest(self) -> str:
        """SHA-256 over all fields, as hex."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def differing(self, other: PlanKey) -> list[str]:
        """Names of the fields that are not alike."""
        return [
            field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)
        ]


class Verdict(NamedTuple):
    """What a plan is worth here, and why; "whole" where nobody asked whether it fits."""

    state: State
    why: str


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What is recorded beside a plan.

    Attributes:
        name: "recipe.b<width>".
        key: What it was built from and for.
        sha256: Digest of the plan.
        size_bytes: Its size.
        built_unix_s: When it was built.
        build_s: How long that took.
    """

    name: str
    key: PlanKey
    sha256: str
    size_bytes: int
    built_unix_s: int
    build_s: float

    @property
    def plan_file(self) -> str:
        """The plan's file name; content-addressed, so that a new plan never overwrites the one in use."""
        return f"{self.name}.{self.sha256[:12]}.plan"


class PlanStore:
    """Plans in one folder, by name.

    Threads: any; ``commit`` belongs to the holder of ``locked()``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Names of everything that has a sidecar."""
        return sorted(path.name.removesuffix(".json") for path in self.folder.glob("*.json"))

    def sidecar(self, name: str) -> Sidecar:
        """What is recorded of a plan.

        Raises:
            FileNotFoundError: No plan of that name was ever finished.
            ValueError: The sidecar cannot be read as one.
        """
        document = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        try:
            return _parse(name, document)
        except (AttributeError, KeyError, OverflowError, TypeError) as exc:
            raise ValueError(f"{type(exc).__name__}: {exc}") from exc

    def judge(self, name: str, key: PlanKey | None) -> Verdict:
        """What the plan of that name is worth where ``key`` is needed.

        Args:
            name: The plan's name.
            key: What is needed; None checks the files alone.
        """
        try:
            sidecar = self.sidecar(name)
        except FileNotFoundError:
            return Verdict("missing", f"no plan in {self.folder}")
        except (OSError, ValueError) as exc:
            return Verdict("damaged", f"its sidecar cannot be used: {exc}")
        if key is not None and (differing := key.differing(sidecar.key)):
            state: State = "foreign" if set(differing) & set(_MACHINE) else "stale"
            return Verdict(state, "; ".join(_difference(field, key, sidecar.key) for field in differing))
        try:
            came = hashlib.sha256((self.folder / sidecar.plan_file).read_bytes()).hexdigest()
        except OSError as exc:
            return Verdict("damaged", f"{sidecar.plan_file} cannot be read: {exc.strerror}")
        if came != sidecar.sha256:
            return Verdict("damaged", f"expected sha256 {sidecar.sha256[:12]}…, got {came[:12]}…")
        return Verdict("ready", "fits this machine") if key else Verdict("whole", "checksum fits")

    def load(self, name: str, key: PlanKey) -> bytes:
        """The plan of that name, whole and for this key.

        Raises:
            EngineError: It is missing, damaged, or was built from or for something else.
        """
        verdict = self.judge(name, key)
        if verdict.state != "ready":
            raise EngineError(f"{name}: {verdict.state} plan: {verdict.why}; {REMEDY}")
        return (self.folder / self.sidecar(name).plan_file).read_bytes()

    @contextmanager
    def locked(self, wait_turn: Callable[[], None]) -> Iterator[None]:
        """Be the only one who builds into this folder.

        Args:
            wait_turn: Waits a moment while another builds; ends the waiting by an error of its own.

        Raises:
            EngineError: The folder cannot be written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "builds.lock").open("w")
        except OSError as exc:
            raise EngineError(
                f"engine_dir: {self.folder} cannot be written to: {exc.strerror}; choose another --engine-dir"
            ) from exc
        with lock:  # closing the file ends the lock, and so does the end of the process
            while not _try_lock(lock):
                wait_turn()
            yield

    def commit(self, name: str, key: PlanKey, plan: bytes, *, built_unix_s: int, build_s: float) -> Sidecar:
        """Keep a plan, instead of any earlier one of that name."""
        sidecar = Sidecar(name, key, hashlib.sha256(plan).hexdigest(), len(plan), built_unix_s, build_s)
        document = {"format": FORMAT, **asdict(sidecar), "digest": key.digest}
        _write(self.folder / sidecar.plan_file, plan)
        _write(self.folder / f"{name}.json", (json.dumps(document, indent=2) + "\n").encode())
        for old in [*self.folder.glob(f"{escape(name)}.*.plan"), *self.folder.glob("*.part")]:
            if old.name != sidecar.plan_file:
                old.unlink()
        return sidecar

    def timing_cache(self, tensorrt: str, sm: str) -> bytes:
        """What earlier builds for this machine measured; empty when there were none."""
        path = self._timing_path(tensorrt, sm)
        return path.read_bytes() if path.exists() else b""

    def keep_timing_cache(self, tensorrt: str, sm: str, content: bytes) -> None:
        """Keep the builder's measurements for the next build."""
        if content:
            _write(self._timing_path(tensorrt, sm), content)

    def _timing_path(self, tensorrt: str, sm: str) -> Path:
        return self.folder / f"{tensorrt}.sm{sm}.timing"


def _parse(name: str, document: Mapping[str, Any]) -> Sidecar:
    if document["format"] != FORMAT:
        raise ValueError(f"expected format {FORMAT}, got {document['format']!r}")
    key = PlanKey(**document["key"])
    if key.digest != document["digest"] or document["name"] != name:
        raise ValueError("its key is not the one that was written")
    return Sidecar(
        name,
        key,
        sha256=str(document["sha256"]),
        size_bytes=int(document["size_bytes"]),
        built_unix_s=int(document["built_unix_s"]),
        build_s=float(document["build_s"]),
    )


def _difference(field: str, needed: PlanKey, built: PlanKey) -> str:
    def shown(key: PlanKey) -> str:
        value = str(getattr(key, field))
        return f"{value[:12]}…" if field == "onnx_sha256" else value

    return f"{field}: expected {shown(needed)}, built with {shown(built)}"


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(path: Path, content: bytes) -> None:
    """Put a file there in one piece: either all of it or what was there before."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
