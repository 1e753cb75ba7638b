"""What is the same for all records of a run, and what plugins add to single records."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from sage_edge.irp import Invariants, TrustTable
from sage_edge.irp.lrc import LRC, LRC_PROFILES
from sage_edge.native import HaltPolicy, StepRun


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What is the same for every run of a plugin.

    Attributes:
        name: Under which it is served.
        version: Of its code and models.
        backend: What computes, such as ``onnxruntime-cpu``.
        device: The processor in use.
        model_sha256: Hex digest of the model, if the plugin has one.
        invariants: Names of the plugin's invariants.
        calibration: From the ``E_norm`` of an answer to its expected quality; None where there is none.
    """

    name: str
    version: str
    backend: str
    device: str
    model_sha256: str | None
    invariants: Invariants
    calibration: TrustTable | None = None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is known of a run before its first step.

    Attributes:
        plugin: Who refines.
        policy: The run's halting rule with its own limits.
        request_id: The request that the run answers.
        entity_id: Who signs for the run.
        start_ns: Monotonic time of its admission to the queue.
        power_w: Watts by which its time is priced.
        price_source: Where ``power_w`` comes from: ``declared`` or the name of a sensor.
        deadline_ms: Milliseconds after ``start_ns`` at which it must end, if any.
        ATP_allocated: Its energy budget in ATP (millijoules), if it has one.
        role: ``L`` for a plugin's refinement, ``H`` for the orchestrator.
        scene_id: The scene that the run belongs to, if any.
        trust_weight: What its energy weighs in the orchestrator's, above 0.
        lrc: The budget policy in force.
    """

    plugin: PluginInfo
    policy: HaltPolicy
    request_id: str
    entity_id: str
    start_ns: int
    power_w: float
    price_source: str
    deadline_ms: float | None = None
    ATP_allocated: float | None = None
    role: str = "L"
    scene_id: str | None = None
    trust_weight: float = 1.0
    lrc: LRC = LRC_PROFILES["edge"]


@dataclass(slots=True, eq=False)
class OpenRun:
    """A run that goes on.

    Attributes:
        info: What is known of it.
        text: The same for the core; the drain makes it with the first record.
        extras: What the plugin adds to its records, by step.
    """

    info: RunInfo
    text: StepRun | None = None
    extras: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def take_extra(self, step_idx: int) -> Mapping[str, Any] | None:
        """What was added to the record of a state; that of the states before is forgotten."""
        for passed in [step for step in list(self.extras) if step < step_idx]:
            del self.extras[passed]
        return self.extras.get(step_idx)


class RunDirectory:
    """The open runs, by number.

    The refiner's side opens a run before its first record is published; the drain closes it after its
    last one. A run that never reaches a slot publishes nothing: whoever opened it closes it. The run
    whose last record was overrun in the mailbox is never closed, so the oldest run makes way when
    more than ``capacity`` are open: choose it well above queue, slots and mailbox together.

    Threads: every method from any thread.
    """

    def __init__(self, capacity: int = 65_536) -> None:
        self._runs: OrderedDict[int, OpenRun] = OrderedDict()
        self._capacity = capacity
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._runs)

    def open(self, run_id: int, info: RunInfo) -> None:
        """Register a run; its number is unique in the process."""
        with self._lock:
            self._runs[run_id] = OpenRun(info)
            if len(self._runs) > self._capacity:
                self._runs.popitem(last=False)

    def get(self, run_id: int) -> OpenRun | None:
        """What is known of an open run."""
        return self._runs.get(run_id)

    def annotate(self, run_id: int, step_idx: int, extra: Mapping[str, Any]) -> None:
        """Add a plugin's own fields to the record of a state, before that is published.

        A run that is not open is none of our business.
        """
        if run := self._runs.get(run_id):
            run.extras[step_idx] = extra

    def close(self, run_id: int) -> None:
        """Forget a run; a run that is not open is none of our business."""
        with self._lock:
            self._runs.pop(run_id, None)
