"""What a record does not carry because it is the same for a whole run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is known of a run before its first step.

    Attributes:
        request_id: The request that the run answers.
        plugin: The plugin's name.
        plugin_version: The version of its code and models.
        backend: The engine in use, such as ``onnxruntime-cpu``.
        device: The processor in use.
        model_sha256: Hex digest of the model, if the plugin has one.
        E_scale: Energy that counts as 1, above 0.
        energy_units: What one unit of ``E`` is.
        state_space: Machine-readable id of what is refined.
        noise_model: Machine-readable id of how uncertainty lives there.
        energy_fn: Machine-readable id of the energy.
        entity_id: Who signs for the run.
        max_steps: Steps that it may take.
        deadline_ms: Milliseconds after ``start_ns`` at which it must end, if any.
        eps: Range of ``E_norm`` below which it has converged.
        ATP_allocated: Its energy budget in ATP (millijoules), if it has one.
        power_w: Watts by which its time is priced.
        price_source: Where ``power_w`` comes from: ``declared`` or the name of a sensor.
        start_ns: Monotonic time of its admission to the queue.
        trust: The map from ``E_norm`` of an answer to its expected quality in [0, 1]; None, or
            returning None, without a calibration. Runs on the drain's thread; must not raise.
        role: ``L`` for a plugin's refinement, ``H`` for the orchestrator.
        scene_id: The scene that the run belongs to, if any.
        trust_weight: What its energy weighs in the orchestrator's, above 0.
    """

    request_id: str
    plugin: str
    plugin_version: str
    backend: str
    device: str
    model_sha256: str | None
    E_scale: float
    energy_units: str
    state_space: str
    noise_model: str
    energy_fn: str
    entity_id: str
    max_steps: int
    deadline_ms: float | None
    eps: float
    ATP_allocated: float | None
    power_w: float
    price_source: str
    start_ns: int
    trust: Callable[[float], float | None] | None = None
    role: str = "L"
    scene_id: str | None = None
    trust_weight: float = 1.0


class RunDirectory:
    """The open runs, by number.

    The refiner's side opens a run before its first record is published; the drain closes it after its
    last one. A run that never reaches a slot publishes nothing: whoever opened it closes it. The run
    whose last record was overrun in the mailbox is never closed, so the oldest run makes way when
    more than ``capacity`` are open: choose it well above queue, slots and mailbox together.

    Threads: every method from any thread.
    """

    def __init__(self, capacity: int = 65_536) -> None:
        self._runs: OrderedDict[int, RunInfo] = OrderedDict()
        self._capacity = capacity
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._runs)

    def open(self, run_id: int, info: RunInfo) -> None:
        """Register a run; its number is unique in the process."""
        with self._lock:
            self._runs[run_id] = info
            if len(self._runs) > self._capacity:
                self._runs.popitem(last=False)

    def get(self, run_id: int) -> RunInfo | None:
        """What is known of an open run."""
        return self._runs.get(run_id)

    def close(self, run_id: int) -> None:
        """Forget a run; a run that is not open is none of our business."""
        with self._lock:
            self._runs.pop(run_id, None)
