"""Plugins that refine latents in batches: the algorithm written once, with a batch axis."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from sage_edge.errors import PluginError
from sage_edge.irp.engine import Engine, Float32
from sage_edge.irp.guard import calling, float32_of, is_plain_float32, state_of
from sage_edge.irp.plugin import IRPPlugin, StateKind
from sage_edge.irp.schedule import NoiseSchedule
from sage_edge.irp.state import Answer, IRPState, TaskContext
from sage_edge.native import HaltPolicy


class Encoded(NamedTuple):
    """The first states of n requests.

    Attributes:
        z: float32 [n, *state_shape].
        context: What each step reads besides z, by name: float32 [n, *shape].
        energy_terms: float32 [n, terms]; a state's energy is the mean of its row.
    """

    z: Float32
    context: Mapping[str, Float32]
    energy_terms: Float32


class Carried(NamedTuple):
    """An answer that stays with its stream.

    Attributes:
        first: float32 [*state_shape], the first state that each part of ``z`` was refined from.
        z: float32 [*state_shape], the state that answered.
    """

    first: Float32
    z: Float32


class Start(NamedTuple):
    """A request before its first state.

    Attributes:
        x0: Its prepared input.
        seed: Of noise of the noise model to start from; None starts from the plugin's own first state.
        earlier: What the stream's last request left; None where it left nothing.
    """

    x0: Any
    seed: int | None = None
    earlier: Carried | None = None


class Begun(NamedTuple):
    """The first states of n requests, streams and noise counted in.

    Attributes:
        encoded: The states that the refinement begins with.
        firsts: float32 [n, *state_shape], what the answers' streams compare the next first states with; it
            may be the same array.
    """

    encoded: Encoded
    firsts: Float32


class LatentPlugin(IRPPlugin):
    """A plugin whose state is a float32 latent: a step is ``z <- clip(z + step_size * delta, lo, hi)``.

    ``encode``, ``advance`` and ``energies`` are to be written, with a batch axis; ``answers`` may be. The
    one-state contract is derived from them, so that the algorithm is written once: many requests are stepped
    together on the host, and on the GPU where ``step_engine`` can be bound there. A class that overrides a
    method of the one-state contract (ONE_STATE) is obeyed, and then refined one state at a time; a noise
    model of its own, ``perturb``, is obeyed either way.

    What these methods return is converted to float32 in C order; another shape is an error that names it.

    Attributes:
        state_shape: Of one latent.
        context_shapes: Of what each step reads besides the latent, by name.
        lo, hi: Bounds of every element.
        step_size: How far along ``delta`` a step goes; a rewind halves it for its run.
        step_engine: The engine that ``advance`` runs, where it does nothing else: the loop on a GPU binds it.
    """

    state_kind: ClassVar[StateKind] = "latent"
    state_shape: tuple[int, ...]
    context_shapes: Mapping[str, tuple[int, ...]] = {}
    lo: float = -float("inf")
    hi: float = float("inf")
    step_size: float = 1.0
    step_engine: Engine | None = None

    @abstractmethod
    def encode(self, inputs: Sequence[Any]) -> Encoded:
        """The first states of n prepared inputs."""

    @abstractmethod
    def advance(
        self, z: Float32, context: Mapping[str, Float32], step_size: Float32
    ) -> tuple[Float32, Float32]:
        """Direction and successor's energy of n states.

        Args:
            z: float32 [n, *state_shape].
            context: float32 [n, ...] by name.
            step_size: float32 [n].

        Returns:
            delta float32 [n, *state_shape], and float32 [n, terms], the energy terms of
            ``clip(z + step_size * delta, lo, hi)``.
        """

    @abstractmethod
    def energies(self, z: Float32, context: Mapping[str, Float32]) -> Float32:
        """Energy terms float32 [n, terms] of n states, as ``advance`` gives them of their successors."""

    def answers(self, z: Float32, inputs: Sequence[Any]) -> list[Answer]:
        """The answers of n states; here their latents.

        Args:
            z: float32 [n, *state_shape]; float16 where the loop on a GPU keeps it so.
            inputs: The prepared input of each.
        """
        return [Answer(row.copy()) for row in z]

    def carry_over(self, first: Float32, earlier: Carried) -> Carried | None:
        """Lay what is still good of a stream's last answer over a first state; None where nothing is.

        It is taken if it has less energy than the first state.

        Args:
            first: float32 [*state_shape].
            earlier: What the stream's last request left.
        """
        return None

    # The one-state contract, derived.

    def init_state(self, x0: Any, task_ctx: TaskContext | None = None) -> IRPState:
        """See IRPPlugin; the state's meta has its context, its input and the first state of its stream."""
        last = task_ctx.last_answer if task_ctx is not None else None
        earlier = Carried(last.meta["first"], last.x) if last is not None else None
        (z, context, _), firsts = begin(self, [Start(x0, earlier=earlier)])
        meta = {name: array[0] for name, array in context.items()}
        return IRPState(z[0], 0, {**meta, "x0": x0, "first": firsts[0]})

    def energy(self, state: IRPState) -> float:
        """See IRPPlugin: the mean of the state's energy terms."""
        terms = energies_of(self, state.x[None], self._context(state))
        return float(terms.mean(dtype=np.float64))

    def step(self, state: IRPState, noise_schedule: NoiseSchedule) -> IRPState:
        """See IRPPlugin: along ``delta``, before the projection."""
        size = np.full(1, self.step_size, np.float32)
        delta, _ = advance_of(self, state.x[None], self._context(state), size)
        return IRPState(state.x + size[0] * delta[0], state.step_idx + 1, state.meta)

    def project(self, state: IRPState) -> IRPState:
        """See IRPPlugin: the latent between its bounds."""
        clipped = np.clip(state.x, np.float32(self.lo), np.float32(self.hi))
        return IRPState(clipped, state.step_idx, state.meta)

    def perturb(self, state: IRPState, sigma: float, rng: np.random.Generator) -> IRPState:
        """See IRPPlugin: Gaussian noise, single precision."""
        noise = rng.standard_normal(self.state_shape, np.float32)
        return IRPState(state.x + np.float32(sigma) * noise, state.step_idx, state.meta)

    def decode(self, state: IRPState) -> Answer:
        """See IRPPlugin."""
        (answer,) = self.answers(state.x[None], [state.meta["x0"]])
        return answer

    def _context(self, state: IRPState) -> dict[str, Float32]:
        return {name: state.meta[name][None] for name in self.context_shapes}


#: Methods of the one-state contract: who overrides one of a LatentPlugin is refined one state at a time.
ONE_STATE = (
    "init_state",
    "energy",
    "step",
    "project",
    "feasible",
    "gap",
    "halt",
    "decode",
    "emit_telemetry",
)


def is_overridden(plugin: IRPPlugin, method: str) -> bool:
    """Whether a plugin has a method of its own, neither the contract's default nor the derived one."""
    return differs(plugin, method, IRPPlugin) and differs(plugin, method, LatentPlugin)


def differs(plugin: IRPPlugin, method: str, kind: type) -> bool:
    """Whether a method is not that of ``kind``, be it the plugin's class's or set on the plugin itself."""
    own = getattr(plugin, method)
    return getattr(own, "__func__", own) is not getattr(kind, method)


def overridden(plugin: LatentPlugin) -> list[str]:
    """The methods of the one-state contract that a latent plugin has of its own."""
    return [name for name in ONE_STATE if is_overridden(plugin, name)]


def compiled_rule(plugin: IRPPlugin) -> HaltPolicy:
    """What the compiled rule starts from: ``halting``.

    Where the plugin itself says when it has converged, the limits and the guards of it.
    """
    if is_overridden(plugin, "halt"):
        return plugin.halting.replace(eps=0.0, halt_when_feasible=False, target_E_norm=-np.inf)
    return plugin.halting


def begin(plugin: LatentPlugin, starts: Sequence[Start]) -> Begun:
    """The first states of n requests.

    A noisy start, and one from a stream's last answer, cost a run of ``energies`` more.

    Raises:
        PluginError: A method raised, or returned something else than it must; it names the method.
    """
    encoded = encode_of(plugin, [start.x0 for start in starts])
    if all(start.seed is None and start.earlier is None for start in starts):
        return Begun(encoded, encoded.z)
    firsts, z, terms = encoded.z.copy(), encoded.z.copy(), encoded.energy_terms.copy()
    for row, (_, seed, earlier) in enumerate(starts):
        context = {name: array[row : row + 1] for name, array in encoded.context.items()}
        if seed is not None:
            z[row] = _noisy(plugin, encoded, row, starts[row].x0, seed)
            terms[row] = energies_of(plugin, z[row : row + 1], context)[0]
        elif earlier is not None:
            with calling(plugin.name, "carry_over"):
                carried = plugin.carry_over(firsts[row].copy(), earlier)
            if carried is None:
                continue
            there = energies_of(plugin, carried.z[None], context)[0]
            if terms[row].mean(dtype=np.float64) > there.mean(dtype=np.float64):
                z[row], terms[row], firsts[row] = carried.z, there, carried.first
    return Begun(Encoded(z, encoded.context, terms), firsts)


def _noisy(plugin: LatentPlugin, encoded: Encoded, row: int, x0: Any, seed: int) -> Float32:
    """One first state with noise of the plugin's noise model."""
    meta = {name: array[row] for name, array in encoded.context.items()}
    state = IRPState(encoded.z[row], 0, {**meta, "x0": x0, "first": encoded.z[row]})
    with calling(plugin.name, "perturb"):
        noisy = plugin.perturb(state, plugin.noise_sigma, np.random.default_rng(seed))
        noisy = state_of(noisy, plugin.name, "perturb", 0)
    z = float32_of(noisy.x, plugin.name, "perturb", "x", plugin.state_shape)
    return np.clip(z, np.float32(plugin.lo), np.float32(plugin.hi))


def encode_of(plugin: LatentPlugin, inputs: Sequence[Any]) -> Encoded:
    """What ``encode`` returns for n inputs, converted and checked; raises PluginError."""
    with calling(plugin.name, "encode"):
        z, context, terms = plugin.encode(inputs)
    n = len(inputs)
    if set(context) != set(plugin.context_shapes):
        raise PluginError(
            f"{plugin.name}.encode: expected context {sorted(plugin.context_shapes)}, got {sorted(context)}"
        )
    return Encoded(
        float32_of(z, plugin.name, "encode", "z", (n, *plugin.state_shape)),
        {
            name: float32_of(context[name], plugin.name, "encode", name, (n, *shape))
            for name, shape in plugin.context_shapes.items()
        },
        _terms(terms, plugin, "encode", n),
    )


def advance_of(
    plugin: LatentPlugin, z: Float32, context: Mapping[str, Float32], step_size: Float32
) -> tuple[Float32, Float32]:
    """What ``advance`` returns for n states, converted and checked; raises PluginError."""
    with calling(plugin.name, "advance"):
        delta, terms = plugin.advance(z, context, step_size)
    return (
        float32_of(delta, plugin.name, "advance", "delta", z.shape),
        _terms(terms, plugin, "advance", len(z)),
    )


def energies_of(plugin: LatentPlugin, z: Float32, context: Mapping[str, Float32]) -> Float32:
    """What ``energies`` returns for n states, converted and checked; raises PluginError."""
    with calling(plugin.name, "energies"):
        terms = plugin.energies(z, context)
    return _terms(terms, plugin, "energies", len(z))


def _terms(terms: Any, plugin: LatentPlugin, method: str, n: int) -> Float32:
    """Energy terms as [n, terms]; one number for each state counts as one term."""
    if is_plain_float32(terms) and terms.ndim == 2 and len(terms) == n and terms.shape[1]:
        return terms
    shape = np.shape(terms)
    if shape == (n,):
        return float32_of(terms, plugin.name, method, "energy terms", shape).reshape(n, 1)
    if len(shape) != 2 or shape[1] == 0:
        raise PluginError(
            f"{plugin.name}.{method}: energy terms: expected shape [{n}, terms], got {list(shape)}"
        )
    return float32_of(terms, plugin.name, method, "energy terms", (n, shape[1]))
