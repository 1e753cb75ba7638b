"""The one door to the compiled core: rings, slots, the halting rule, the latent step, QPs, and the GPU.

Everything here is a thin, typed name for something in ``sage_edge._core``; its documentation is there too.
``RefineLoop``, ``TensorView`` and ``mapped_ring`` come from ``sage_edge._cuda``, which a build without a CUDA
compiler leaves out; asking for them then raises a DeviceError.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

try:
    from sage_edge._core import (
        HaltPolicy,
        Horizon,
        QpRun,
        QpSolution,
        QpSolutions,
        QpSolver,
        Ring,
        RingReader,
        StepForm,
        StepRun,
        ThreadPool,
        advance_many,
        grid_way,
        halt_reason,
        latent_step,
        solve_chain_qp,
        solve_qp,
        write_steps,
    )
except ModuleNotFoundError as exc:
    if exc.name != "sage_edge._core":
        raise
    raise ModuleNotFoundError("sage_edge is not built here: run `make build`") from exc

from sage_edge import _core
from sage_edge.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    import numpy as np

__all__ = [
    "BUILT_WITH_CUDA",
    "FLAG_CLOSING",
    "HALT_REASONS",
    "PROTOCOL_REASONS",
    "RECORD_DTYPE",
    "HaltPolicy",
    "Horizon",
    "QpRun",
    "QpSolution",
    "QpSolutions",
    "QpSolver",
    "Ring",
    "RingReader",
    "RunSummary",
    "SlotTable",
    "StepForm",
    "StepRun",
    "ThreadPool",
    "TrustStatistics",
    "advance_many",
    "cuda_devices",
    "cuda_refusal",
    "device_count",
    "grid_way",
    "halt_reason",
    "latent_step",
    "protocol_reason",
    "solve_chain_qp",
    "solve_qp",
    "trust_statistics",
    "write_steps",
]

BUILT_WITH_CUDA: Final[bool] = find_spec("sage_edge._cuda") is not None
"""Whether this build has the loop on the GPU; it needs no driver to be imported."""

_FROM_CUDA = ("RefineLoop", "TensorView", "mapped_ring")

RECORD_DTYPE: Final[np.dtype[np.void]] = _core.record_dtype()
"""The 64 bytes of a telemetry record; the fields are those of ``Record`` in csrc/core/record.h."""

HALT_REASONS: Final[tuple[str | None, ...]] = tuple(_core.halt_reasons())
"""Wire names by halt reason code; None for code 0, still running."""

PROTOCOL_REASONS: Final[tuple[str | None, ...]] = tuple(_core.protocol_reasons())
"""By the same codes the protocol's own word, or the nearest that it has."""


def protocol_reason(reason: str | None) -> str | None:
    """The protocol's own word for one of HALT_REASONS, or the nearest that it has."""
    return PROTOCOL_REASONS[HALT_REASONS.index(reason)]


FLAG_CLOSING: Final = 2
"""In the flags of a record: its run was ended between two steps, this is no new state."""


class TrustStatistics(NamedTuple):
    """Trust statistics of one run (docs/IRP_PROTOCOL.md#4-trust).

    Attributes:
        monotonicity_ratio: Share of the steps that lowered the energy; 0 while n is 0.
        dE_variance: Population variance of the energy changes; 0 while n is 0.
        convergence_rate: (E_0 - E_n) / n; NaN while n is 0.
        n: Finite energy changes seen.
    """

    monotonicity_ratio: float
    dE_variance: float
    convergence_rate: float
    n: int


class RunSummary(NamedTuple):
    """A run as its slot knows it.

    Attributes:
        run_id: The run.
        step_idx: Steps taken.
        E: Energy of the current state.
        E0: Energy of state 0.
        best_E: Energy of the best state; infinite when no energy was finite, and state 0 then stands in.
        best_step: Its step: the lowest-energy feasible state, or the lowest-energy one if none is feasible.
        halt_reason: Why the run ended; None while it runs.
        residual: Relative size of the last step; NaN at step 0.
        spent_us: Compute charged, microseconds.
        monotonicity_ratio: See TrustStatistics.
        dE_variance: See TrustStatistics.
        convergence_rate: See TrustStatistics.
        best_is_current: Whether the best state is in ``z`` of its slot; otherwise it is in ``best``.
        feasible: Whether the current state is.
        branch: The branch that it ended on.
        rewinds: How often it went back to an earlier state.
        best_feasible: Whether the best state is.
    """

    run_id: int
    step_idx: int
    E: float
    E0: float
    best_E: float
    best_step: int
    halt_reason: str | None
    residual: float
    spent_us: float
    monotonicity_ratio: float
    dE_variance: float
    convergence_rate: float
    best_is_current: bool
    feasible: bool
    branch: int = 0
    rewinds: int = 0
    best_feasible: bool = True


class SlotTable(_core.SlotTable):
    """The runs of one refiner; the live slots are always 0 .. live - 1.

    One thread at a time: the producer of the ring. A slot that is not live raises IndexError.

    Args:
        capacity: Number of slots, at least 1.
        ring: Where every state is published; kept alive by the table.
        plugin: Small integer that names the plugin in the records.
    """

    def summary(self, slot: int) -> RunSummary:
        """The run in a live slot.

        Raises:
            IndexError: The slot is not live.
        """
        return RunSummary(*self.summary_fields(slot))


def trust_statistics(history: Sequence[float]) -> TrustStatistics:
    """Trust statistics over the energies E_0 .. E_n; a change that is not finite is not counted.

    Raises:
        ShapeError: The history is empty.
    """
    return TrustStatistics(*_core.trust_statistics(history))


def device_count() -> int:
    """CUDA devices that can be used here; 0 without a driver, and in a build without CUDA."""
    if not BUILT_WITH_CUDA:
        return 0
    from sage_edge import _cuda

    return _cuda.device_count()


def cuda_devices() -> list[str]:
    """Name and compute capability of each CUDA device that can be used here."""
    if not BUILT_WITH_CUDA:
        return []
    from sage_edge import _cuda

    return _cuda.device_names()


def cuda_refusal() -> str:
    """Why no CUDA device can be used here; empty where one can, and in a build without CUDA."""
    if not BUILT_WITH_CUDA:
        return ""
    from sage_edge import _cuda

    return _cuda.refusal()


def __getattr__(name: str) -> Any:
    if name not in _FROM_CUDA:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not BUILT_WITH_CUDA:
        raise DeviceError(
            f"{name}: expected a build with CUDA, this one is without: install the CUDA toolkit and run "
            "`SAGE_CUDA=ON make build`"
        )
    from sage_edge import _cuda

    return getattr(_cuda, name)
