"""The contract that every plugin keeps, and that is served: docs/IRP_PROTOCOL.md#1-the-contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import isfinite
from sys import float_info
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from sage_edge import native
from sage_edge.errors import ConfigError, PluginError
from sage_edge.inputs import FRAME, InputKind
from sage_edge.irp.calibration import TrustTable
from sage_edge.irp.engine import Engine
from sage_edge.irp.recipe import Recipe
from sage_edge.irp.schedule import ConstantNoise, NoiseSchedule
from sage_edge.irp.state import Answer, Invariants, IRPState, TaskContext
from sage_edge.memory import bytes_of

#: Headings that a plugin's docstring must carry; ``sage-edge plugin check`` reads them.
INVARIANT_HEADINGS = ("State space", "Noise model", "Energy", "Coherence contribution")
#: Keys of a plugin's config that every plugin takes: its halting rule.
HALT_KEYS = {"halt_eps": "eps", "halt_K": "K", "halt_max_steps": "max_steps"}
#: Fields that ``emit_telemetry`` returns for every plugin; what stands beside them is the plugin's own.
TELEMETRY_FIELDS = frozenset({"plugin", "step_idx", "E", "dE", "halt_reason", "budget", "trust"})

StateKind: TypeAlias = Literal["latent", "solver", "pixels"]


class IRPPlugin(ABC):
    """One modality: its state, noise model, energy, step, projection and halting.

    Three methods are to be written: ``init_state``, ``energy`` and ``step``. A class with these three is
    served as it is; every other method has a default, and one that is overridden is obeyed.

    A plugin holds no state of a request: everything that belongs to a request is in its IRPState, so that
    two requests never share an object that changes. Its docstring states the four invariants under the
    headings of INVARIANT_HEADINGS. How to write one: docs/PLUGINS.md; the definition: docs/IRP_PROTOCOL.md.

    Threads: several at once. The methods of one state follow each other; those of other states may run beside
    them, since a step that lasts is taken on a thread of its own.

    Attributes:
        name: Under which it is served; whoever serves it sets the name that the settings give it.
        version: Of its code and models.
        invariants: Names of the four invariants, as the telemetry records them.
        takes: The kind of input, and so what ``prepare`` is given.
        state_kind: Whether the state is a latent, a solver's variables, or pixels.
        profiles: Machines that it is for; None: all, but for a plugin that refines pixels, which is for
            workstations alone.
        halting: When a run ends by itself. K = 3 and eps = 1e-4 are the protocol's defaults.
        noise_schedule: Handed to each ``step``.
        noise_sigma: Noise of the branches of a request, in the units of the noise model.
        can_rewind: Whether going back to an earlier state can save a run that went astray.
        calibration: What an energy promises; None where nothing was calibrated.
        config_keys: Keys of its own that its config may have.
        backend: What computes, as records and ``/v1/status`` name it.
        model_sha256: Digest of what was learned; None for a plugin without a model.
    """

    name: str = ""
    version: str = "0"
    invariants: Invariants = Invariants("unnamed", "gaussian", "unnamed", "unnamed")
    takes: ClassVar[InputKind] = FRAME
    state_kind: ClassVar[StateKind] = "solver"
    profiles: ClassVar[tuple[str, ...] | None] = None
    halting: native.HaltPolicy = native.HaltPolicy()
    noise_schedule: NoiseSchedule = ConstantNoise()
    noise_sigma: float = 1.0
    can_rewind: bool = True
    calibration: TrustTable | None = None
    config_keys: ClassVar[tuple[str, ...]] = ()
    backend: str = "python"
    model_sha256: str | None = None

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        """Take the settings of ``[plugins.NAME]``.

        Args:
            config: ``halt_eps``, ``halt_K`` and ``halt_max_steps`` change the halting rule; the rest are the
                plugin's ``config_keys``.

        Raises:
            ConfigError: A key is unknown or its value unusable; it names the key.
        """
        self.config: Mapping[str, Any] = dict(config or {})
        known = (*HALT_KEYS, *self.config_keys)
        for key in self.config:
            if key not in known:
                raise ConfigError(f"{key}: unknown to this plugin; known: {', '.join(known)}")
        self.halting = self.configured(self.halting)

    def configured(self, halting: native.HaltPolicy) -> native.HaltPolicy:
        """A halting rule with what the config changes of it.

        Raises:
            ConfigError: A value is unusable; it names the key.
        """
        for key, field in HALT_KEYS.items():
            if key in self.config:
                value = self.config[key]
                try:
                    halting = halting.replace(**{field: value})
                except (ConfigError, TypeError) as exc:
                    raise ConfigError(f"{key}: expected a number that {field} can be, got {value!r}") from exc
        return halting

    @classmethod
    def allowed_profiles(cls) -> tuple[str, ...]:
        """The profiles on which it may be served."""
        if cls.profiles is not None:
            return cls.profiles
        return ("workstation",) if cls.state_kind == "pixels" else ("edge", "workstation")

    # What has to be written.

    @abstractmethod
    def init_state(self, x0: Any, task_ctx: TaskContext) -> IRPState:
        """The first state of a request: ``step_idx`` 0.

        Args:
            x0: What ``prepare`` returned.
            task_ctx: The stream, and what its last request left.
        """

    @abstractmethod
    def energy(self, state: IRPState) -> float:
        """Energy of a state, lower is better. Pure; called once for each state."""

    @abstractmethod
    def step(self, state: IRPState, noise_schedule: NoiseSchedule) -> IRPState:
        """One refinement: a new state with ``step_idx`` one higher.

        Args:
            state: Stays as it is.
            noise_schedule: ``noise_schedule(state.step_idx)`` is the noise that this step may add.
        """

    # What may be.

    def project(self, state: IRPState) -> IRPState:
        """Put a state back inside the constraints; one that is inside stays as it is."""
        return state

    def feasible(self, state: IRPState) -> bool:
        """Whether a state satisfies the plugin's constraints."""
        return True

    def gap(self, state: IRPState) -> float:
        """How far a state may be from the best one, relative to its cost; 0 where no rule asks for it."""
        return 0.0

    def halt(self, history: Sequence[float], state: IRPState | None = None) -> str | None:
        """The reason to stop after energies E_0 .. E_n, or None to go on. Decides, changes nothing.

        The limits of a request (steps, deadline, budget, quality) hold whatever it says.

        Args:
            history: Energies of all states so far.
            state: The one that the last energy belongs to; without it, it counts as feasible, with no gap.
        """
        if state is None:
            return native.halt_reason(history, self.halting)
        return native.halt_reason(history, self.halting, feasible=self.feasible(state), gap=self.gap(state))

    def perturb(self, state: IRPState, sigma: float, rng: np.random.Generator) -> IRPState:
        """The state with noise of the noise model added; here Gaussian of standard deviation ``sigma``.

        Branches of a request start from it, with ``noise_sigma``.
        """
        noise = sigma * rng.standard_normal(np.shape(state.x))
        return IRPState((state.x + noise).astype(state.x.dtype), state.step_idx, state.meta)

    def prepare(self, x: Any) -> Any:
        """Check an input and make it what ``init_state`` takes; here it is taken as it is.

        Args:
            x: What ``takes`` says: of FRAME uint8 [H, W, 3] or an array as it was sent, of DOCUMENT a mapping
                of named values, of TEXT a str.

        Raises:
            InputError: It cannot be used; the caller is told why.
        """
        return x

    def input_size(self, x0: Any) -> float:
        """How large a prepared input is, in a unit of the plugin's own: what its time grows with.

        Durations are learned for each power of two of it, so that a large problem teaches nothing about small
        ones; below 1 counts as 1.
        """
        return 1.0

    def needed_bytes(self, frame: Any) -> int:
        """Memory that a request takes from ``prepare`` to its answer, beside its slot's own ``slot_bytes``.

        Asked before ``prepare`` is called with the same frame or document, which may be anything that the
        kind of input lets through: a request for which there is no room is refused then. Here eight times
        the input: what is prepared, a few states of that size, the answer.
        """
        return 8 * bytes_of(frame)

    def decode(self, state: IRPState) -> Answer:
        """The answer of a state; here its array. A bare array counts as ``Answer(array)``."""
        return Answer(np.asarray(state.x))

    def example(self) -> Any:
        """A prepared input to warm up and to be checked with."""
        if self.takes is not FRAME:
            raise PluginError(f"{self.name}.example: define it: there is no default {self.takes.name}")
        rows, columns = np.mgrid[:48, :64]
        red = (np.hypot(rows - 24, columns - 32) < 14) * 160 + 40
        return self.prepare(np.stack([red, 4 * columns, 5 * rows], axis=-1).astype(np.uint8))

    def trust(self, E_norm: float) -> float | None:
        """Expected quality in [0, 1] of an answer with this energy; None without a calibration."""
        return self.calibration(E_norm) if self.calibration is not None else None

    def E_norm_for(self, quality: float) -> float:
        """The energy at which that quality is expected; -inf when it is out of reach."""
        return self.calibration.E_norm_for(quality) if self.calibration is not None else -np.inf

    @property
    def slot_bytes(self) -> int:
        """Memory that one slot takes, at least; the start is refused where all slots together do not fit."""
        return 64 << 10

    def emit_telemetry(self, state: IRPState, history: Sequence[float]) -> dict[str, Any]:
        """A record that the telemetry schema accepts. Reports; never decides, never recomputes.

        ``halt_reason``, ``time_ms`` and ``ATP_spent`` are taken from ``state.meta``, where a loop may put
        them; the service's own records know them anyhow. What an override adds beside TELEMETRY_FIELDS stands
        in the service's records under ``extra``.
        """
        trust = native.trust_statistics(history)
        return {
            "plugin": self.name,
            "step_idx": state.step_idx,
            "E": history[-1] if isfinite(history[-1]) else float_info.max,
            "dE": _finite(history[-1] - history[-2]) if len(history) > 1 else None,
            "halt_reason": native.protocol_reason(state.meta.get("halt_reason")),
            "budget": {
                "ATP_spent": float(state.meta.get("ATP_spent", 0.0)),
                "time_ms": float(state.meta.get("time_ms", 0.0)),
            },
            "trust": {
                "monotonicity_ratio": trust.monotonicity_ratio,
                "dE_variance": trust.dE_variance,
                "n_dE": trust.n,
            },
        }

    # Networks, for a plugin that has some.

    def recipes(self, precision: str) -> Mapping[str, Recipe]:
        """The networks that it wants, by names of its own; read before anything is loaded.

        Args:
            precision: "fp32" or "fp16".

        Raises:
            ConfigError: Its config names no usable model.
            EngineError: A model's files are broken.
        """
        return {}

    def load(self, engines: Mapping[str, Engine]) -> None:  # noqa: B027 - most plugins have none
        """Take the networks, loaded on the backend of the settings; called once, before anything else.

        Raises:
            EngineError: They are not what it needs.
        """


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
