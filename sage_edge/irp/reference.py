"""The reference loop: the definition of a refinement, and the oracle of every other way to run one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sage_edge.irp.plugin import IRPPlugin
from sage_edge.irp.state import IRPState, TaskContext


@dataclass(frozen=True, slots=True)
class Refinement:
    """What a reference run leaves.

    Attributes:
        best: The lowest-energy feasible state (the lowest-energy one while none was feasible).
        last: The state at which the loop stopped.
        energies: E_0 .. E_n, one for each state.
        halt_reason: Why it stopped.
    """

    best: IRPState
    last: IRPState
    energies: tuple[float, ...]
    halt_reason: str


def refine(plugin: IRPPlugin, x0: Any, task_ctx: TaskContext | None = None) -> Refinement:
    """Refine one input until the plugin's halting rule stops it.

    Args:
        plugin: The modality.
        x0: What the plugin's ``init_state`` takes.
        task_ctx: Passed through to ``init_state``; one without a stream by default.

    Returns:
        The best and the last state, the energies and the halt reason.
    """
    state = plugin.project(plugin.init_state(x0, task_ctx or TaskContext()))
    history = [plugin.energy(state)]
    best, best_rank = state, _rank(plugin, state, history[-1])
    while (reason := plugin.halt(history, state)) is None:
        state = plugin.project(plugin.step(state, plugin.noise_schedule))
        history.append(plugin.energy(state))
        rank = _rank(plugin, state, history[-1])
        if rank < best_rank:
            best, best_rank = state, rank
    return Refinement(best, state, tuple(history), reason)


def _rank(plugin: IRPPlugin, state: IRPState, energy: float) -> tuple[bool, float]:
    """Feasible before infeasible, then by energy; a NaN compares as no improvement."""
    return not plugin.feasible(state), energy
