"""Whether a plugin keeps its contract: tried out on its own example, before anybody else's input is."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np

from sage_edge import native
from sage_edge.errors import PluginError, SageError
from sage_edge.irp import (
    INVARIANT_HEADINGS,
    Answer,
    ConstantNoise,
    IRPPlugin,
    IRPState,
    LatentPlugin,
    TaskContext,
    refine,
)
from sage_edge.irp.extras import extras_of
from sage_edge.irp.guard import (
    answer_of,
    calling,
    example_of,
    number_of,
    quality_of,
    reason_of,
    size_of,
    state_of,
)
from sage_edge.irp.latent import advance_of, compiled_rule, energies_of, overridden
from sage_edge.runtime import LONG_STEP_NS, CpuRefiner, Finished, Job, open_slots
from sage_edge.telemetry import TelemetryValidator, load_schema

#: Energies of another batch, or of another way to run, may differ: sums are taken in another order.
_RTOL, _ATOL = 2e-4, 1e-7
#: Steps of a tried run, at most.
_MOST_STEPS = 64
#: A start that takes longer steps than this says so.
SLOW_STEP_S = 1.0

Verdict = Literal["ok", "FAIL", "note"]


class Finding(NamedTuple):
    """What one check found.

    Attributes:
        check: What was looked at.
        verdict: ``FAIL`` where the plugin cannot be served as it is.
        detail: What was seen, or what to mend.
    """

    check: str
    verdict: Verdict
    detail: str


class _FlawError(Exception):
    """What a plugin does against its contract."""


def check(plugin: IRPPlugin, inputs: Sequence[Any] = ()) -> list[Finding]:
    """Try every method, and every way in which a plugin is run.

    Args:
        plugin: With its networks.
        inputs: Prepared inputs to try beside the plugin's own example.

    Returns:
        A finding for each check. A check that needs what an earlier one found wrong is left out.
    """
    findings = [
        _try("docstring", lambda: _docstring(plugin)),
        _try("invariants", lambda: _invariants(plugin)),
    ]
    try:
        tried = [example_of(plugin), *inputs]
    except SageError as exc:
        return [*findings, Finding("example", "FAIL", _words(exc))]
    first = _try("one step", lambda: _one_step(plugin, tried[0]))
    findings.append(first)
    if first.verdict == "FAIL":
        return findings
    checks: list[tuple[str, Callable[[], str | Finding]]] = [
        ("noise schedule", lambda: _noise_schedule(plugin, tried[0])),
        ("noise raises the energy", lambda: _noise(plugin, tried[0])),
        ("telemetry", lambda: _telemetry(plugin, tried[0])),
        ("requests are apart", lambda: _apart(plugin, tried)),
        ("slots", lambda: _slots(plugin, tried)),
        ("stopped at any step", lambda: _stopped(plugin, tried[0])),
        ("branch", lambda: _branch(plugin, tried[0])),
        ("stream", lambda: _stream(plugin, tried[0])),
        ("rewind", lambda: _rewind(plugin, tried[0])),
        ("time", lambda: _time(plugin, tried[0])),
    ]
    if isinstance(plugin, LatentPlugin):
        checks.insert(0, ("successor's energy", lambda: _successor(plugin, tried[0])))
    return [*findings, *(_try(name, run) for name, run in checks)]


def check_quickly(plugin: IRPPlugin) -> None:
    """What is looked at before a plugin is served: that it has an example and can take a step.

    Raises:
        PluginError: It cannot; the message says what to mend.
    """
    x0 = example_of(plugin)
    try:
        _one_step(plugin, x0)
        _apart(plugin, [x0], steps=2)
    except _FlawError as exc:
        raise PluginError(f"{plugin.name}: {exc}; `sage-edge plugin check` says more") from exc


def _try(name: str, run: Callable[[], str | Finding]) -> Finding:
    try:
        found = run()
    except (_FlawError, SageError) as exc:
        return Finding(name, "FAIL", _words(exc))
    return found if isinstance(found, Finding) else Finding(name, "ok", found)


def _words(exc: Exception) -> str:
    """An error with what it came of."""
    return f"{exc}: {exc.__cause__}" if exc.__cause__ else str(exc)


def _docstring(plugin: IRPPlugin) -> str:
    text = inspect.getdoc(type(plugin)) or ""
    missing = [heading for heading in INVARIANT_HEADINGS if f"{heading}: " not in text]
    if missing:
        raise _FlawError(f"the class's docstring lacks {', '.join(f'«{heading}: …»' for heading in missing)}")
    return "states the four invariants"


def _invariants(plugin: IRPPlugin) -> str:
    unnamed = [name for name, value in plugin.invariants._asdict().items() if value in ("", "unnamed")]
    if unnamed:
        raise _FlawError(f"set invariants = Invariants(…): {', '.join(unnamed)} has no name")
    return ", ".join(plugin.invariants[:3])


def _one_step(plugin: IRPPlugin, x0: Any) -> str:
    """Every method once, and what it must not do."""
    name = plugin.name
    size_of(plugin, x0)
    state = _first(plugin, x0)
    energy = _pure_energy(plugin, state)
    if _first_energy(plugin, x0) != energy:
        raise _FlawError("init_state: the same input twice has two energies: it depends on something else")
    before = _arrays_of(state)
    with calling(name, "step"):
        moved = state_of(plugin.step(state, plugin.noise_schedule), name, "step", 1)
    _unchanged(state, before, "step")
    with calling(name, "project"):
        projected = state_of(plugin.project(moved), name, "project", 1)
        again = state_of(plugin.project(projected), name, "project", 1)
    if not _same(projected.x, again.x):
        raise _FlawError("project: projecting twice moves the state again; a state that is inside must stay")
    successor = _pure_energy(plugin, projected)
    history = (energy, successor)
    with calling(name, "feasible"):
        feasible = plugin.feasible(projected)
    if not isinstance(feasible, bool | np.bool_):
        raise _FlawError(f"feasible: expected True or False, got {type(feasible).__name__}")
    with calling(name, "gap"):
        number_of(plugin.gap(projected), name, "gap")
    with calling(name, "halt"):
        reason_of(plugin.halt(history, projected), name)
    with calling(name, "decode"):
        answer = answer_of(plugin.decode(projected), name)
    _sayable(answer)
    quality_of(plugin, successor / plugin.halting.E_scale)
    with calling(name, "E_norm_for"):
        number_of(plugin.E_norm_for(0.5), name, "E_norm_for")
    _unchanged(projected, _arrays_of(again), "decode")
    with calling(name, "emit_telemetry"):
        extras_of(plugin.emit_telemetry(projected, history), name)
    return f"E {energy:.4g} -> {successor:.4g}, answer {answer.array.dtype} {list(answer.array.shape)}"


def _sayable(answer: Answer) -> None:
    try:
        json.dumps(dict(answer.details), allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise _FlawError(f"decode: details: expected what JSON has: {exc}") from exc


def _first(plugin: IRPPlugin, x0: Any, context: TaskContext | None = None) -> IRPState:
    with calling(plugin.name, "init_state"):
        state = plugin.init_state(x0, context or TaskContext())
        state = state_of(state, plugin.name, "init_state", 0)
    with calling(plugin.name, "project"):
        return state_of(plugin.project(state), plugin.name, "project", 0)


def _first_energy(plugin: IRPPlugin, x0: Any) -> float:
    state = _first(plugin, x0)
    return number_of(plugin.energy(state), plugin.name, "energy")


def _pure_energy(plugin: IRPPlugin, state: IRPState) -> float:
    """The energy of a state, asked for twice."""
    before = _arrays_of(state)
    with calling(plugin.name, "energy"):
        first, second = (number_of(plugin.energy(state), plugin.name, "energy") for _ in range(2))
    _unchanged(state, before, "energy")
    if first != second:
        unequal = f"{first} and {second} for one state: it is not pure"
        what = "is not a number" if np.isnan(first) else unequal
        raise _FlawError(f"energy: {what}")
    return first


def _noise_schedule(plugin: IRPPlugin, x0: Any) -> str:
    state = _first(plugin, x0)
    with calling(plugin.name, "step"):
        still, noisy = (plugin.step(state, ConstantNoise(sigma)).x for sigma in (0.0, plugin.noise_sigma))
    used = "ignored" if _same(still, noisy) else "used"
    if used != plugin.invariants.noise_schedule:
        raise _FlawError(
            f"the invariants say that the noise schedule is {plugin.invariants.noise_schedule}; it is {used}"
        )
    return used


def _noise(plugin: IRPPlugin, x0: Any) -> str:
    if not plugin.noise_sigma:
        return "none: noise_sigma is 0"
    rng = np.random.default_rng(3)
    refined = _refined(plugin, x0)
    with calling(plugin.name, "perturb"):
        noisy = [plugin.project(plugin.perturb(refined[-1], plugin.noise_sigma, rng)) for _ in range(8)]
    lowest = plugin.energy(refined[-1])
    mean = float(np.mean([plugin.energy(state) for state in noisy]))
    if not mean > lowest:
        raise _FlawError(
            "noise along the noise model does not raise the energy of a refined state: "
            f"{lowest:.4g} -> {mean:.4g}"
        )
    return f"E {lowest:.4g} -> {mean:.4g} at noise_sigma {plugin.noise_sigma:g}"


def _refined(plugin: IRPPlugin, x0: Any, steps: int = _MOST_STEPS) -> list[IRPState]:
    """The states of a run, the plugin's halting rule in force."""
    states = [_first(plugin, x0)]
    history = [plugin.energy(states[0])]
    while len(states) <= steps and plugin.halt(history, states[-1]) is None:
        states.append(plugin.project(plugin.step(states[-1], plugin.noise_schedule)))
        history.append(plugin.energy(states[-1]))
    return states


def _telemetry(plugin: IRPPlugin, x0: Any) -> str:
    validator = _validator()
    states = _refined(plugin, x0)
    energies = [plugin.energy(state) for state in states]
    own: set[str] = set()
    for count, state in enumerate(states, 1):
        record = plugin.emit_telemetry(state, energies[:count])
        if errors := validator.errors(record):
            raise _FlawError(f"emit_telemetry: not valid under the schema: {errors[0]}")
        own |= set(extras_of(record, plugin.name))
    return f"valid under the schema, own fields: {', '.join(sorted(own)) or 'none'}"


@cache
def _validator() -> TelemetryValidator:
    return TelemetryValidator(load_schema())


def _apart(plugin: IRPPlugin, inputs: Sequence[Any], steps: int = 4) -> str:
    """Two requests step by step in turns have the energies that each has alone."""
    pairs = [inputs[0], inputs[-1]]
    alone = [_energies(plugin, x0, steps) for x0 in pairs]
    turns = [_walk(plugin, x0, steps) for x0 in pairs]
    together: list[list[float]] = [[], []]
    for _ in range(steps + 1):
        for number, walk in enumerate(turns):
            together[number].append(next(walk))
    if not np.array_equal(alone, together, equal_nan=True):
        raise _FlawError(
            "two requests that are refined in turns have other energies than alone: keep what belongs to a "
            "request in its IRPState, not in the plugin"
        )
    return f"{steps} steps in turns as alone"


def _energies(plugin: IRPPlugin, x0: Any, steps: int) -> list[float]:
    walk = _walk(plugin, x0, steps)
    return [next(walk) for _ in range(steps + 1)]


def _walk(plugin: IRPPlugin, x0: Any, steps: int) -> Iterator[float]:
    state = _first(plugin, x0)
    for _ in range(steps + 1):
        yield plugin.energy(state)
        with calling(plugin.name, "step"):
            state = plugin.project(plugin.step(state, plugin.noise_schedule))


def _slots(plugin: IRPPlugin, inputs: Sequence[Any]) -> str:
    """Alone, beside others, whose rows move when one ends, and all at once: as in the reference loop."""
    many = [inputs[number % len(inputs)] for number in range(5)]
    references = [refine(plugin, x0) for x0 in inputs]
    jobs = [Job(n, x0, compiled_rule(plugin)) for n, x0 in enumerate(many)]
    ways = {"1 slot": (1, LONG_STEP_NS), "3 slots": (3, LONG_STEP_NS), "3 steps at once": (3, 0)}
    for way, (capacity, long_step_ns) in ways.items():
        energies, finished = _serve(plugin, jobs, capacity, long_step_ns=long_step_ns)
        for number in range(len(many)):
            reference = references[number % len(inputs)]
            summary = _summary(finished[number])
            told = (summary.halt_reason, summary.step_idx, summary.best_step)
            expected = (reference.halt_reason, len(reference.energies) - 1, reference.best.step_idx)
            if told != expected:
                raise _FlawError(
                    f"with {way} a run ends by {told}, in the reference loop by {expected} "
                    "(reason, steps, best step)"
                )
            _close(energies[number], reference.energies, f"with {way}")
    stepped = "one by one" if not isinstance(plugin, LatentPlugin) or overridden(plugin) else "together"
    return f"1 and 3 slots, 3 at once, stepped {stepped}, as the reference loop: {references[0].halt_reason}"


def _stopped(plugin: IRPPlugin, x0: Any) -> str:
    """However early it is stopped, there is an answer, and it is that of the best state so far."""
    whole = refine(plugin, x0)
    energies = whole.energies
    for steps in range(min(len(energies), 6)):
        policy = compiled_rule(plugin).replace(max_steps=steps, eps=0.0, halt_when_feasible=False)
        _, finished = _serve(plugin, [Job(0, x0, policy)], 1)
        best = _summary(finished[0]).best_E
        if not np.isclose(best, np.nanmin(energies[: steps + 1]), rtol=_RTOL, atol=_ATOL) and all(
            plugin.feasible(state) for state in _refined(plugin, x0, steps)
        ):
            raise _FlawError(
                f"stopped after {steps} steps the answer's energy is {best}, not the lowest so far"
            )
    return f"after 0 to {min(len(energies), 6) - 1} steps"


def _branch(plugin: IRPPlugin, x0: Any) -> str:
    jobs = [
        Job(n, x0, compiled_rule(plugin), branch=n, branches=3, seed=seed)
        for n, seed in enumerate((None, 7, 7))
    ]
    energies, _ = _serve(plugin, jobs, 3)
    if not np.array_equal(energies[1], energies[2], equal_nan=True):
        raise _FlawError("perturb: two branches of one seed differ; take every random number from rng")
    if plugin.noise_sigma > 0 and energies[0][0] == energies[1][0]:
        raise _FlawError(
            "perturb: a noisy branch starts with the energy of the plain start; or set noise_sigma = 0"
        )
    return f"starts at E {energies[0][0]:.4g} and {energies[1][0]:.4g}"


def _stream(plugin: IRPPlugin, x0: Any) -> str:
    """The next request of a stream is told what the last one left."""
    job = Job(0, x0, compiled_rule(plugin), stream_id="checked")
    _, finished = _serve(plugin, [job, Job(1, x0, compiled_rule(plugin), stream_id="checked")], 1)
    cold, warm = (_summary(finished[number]).step_idx for number in (0, 1))
    return f"{cold} steps, then {warm} for the same input"


def _rewind(plugin: IRPPlugin, x0: Any) -> str | Finding:
    if not plugin.can_rewind:
        return "none: can_rewind is False"
    # Below 0, so that every state but a better one counts as astray.
    policy = compiled_rule(plugin).replace(
        rewinds=1, rise=0.0, eps=0.0, halt_when_feasible=False, max_steps=8
    )
    _, finished = _serve(plugin, [Job(0, x0, policy)], 1, history=2)
    rewinds = _summary(finished[0]).rewinds
    if rewinds:
        return f"{rewinds} of a run that went astray"
    return Finding("rewind", "note", "not tried: no state of the example has more energy than one before")


def _time(plugin: IRPPlugin, x0: Any) -> Finding:
    state = _first(plugin, x0)
    start_s = time.perf_counter()
    moved = plugin.project(plugin.step(state, plugin.noise_schedule))
    stepped_s = time.perf_counter()
    plugin.energy(moved)
    step_ms, energy_ms = (stepped_s - start_s) * 1e3, (time.perf_counter() - stepped_s) * 1e3
    detail = f"step {step_ms:.3g} ms, energy {energy_ms:.3g} ms"
    if step_ms + energy_ms > SLOW_STEP_S * 1e3:
        return Finding("time", "note", f"{detail}: a deadline is kept to one step, which is long here")
    if energy_ms > step_ms > 0.05:
        return Finding("time", "note", f"{detail}: the energy costs more than the step that it judges")
    return Finding("time", "ok", detail)


def _successor(plugin: LatentPlugin, x0: Any) -> str:
    """The energy that ``advance`` foretells is that of the state which the step leads to."""
    state = plugin.project(plugin.init_state(x0))
    context = {name: state.meta[name][None] for name in plugin.context_shapes}
    size = np.full(1, plugin.step_size, np.float32)
    delta, terms = advance_of(plugin, state.x[None], context, size)
    z = np.clip(state.x[None] + size[0] * delta, np.float32(plugin.lo), np.float32(plugin.hi))
    told, true = (float(t.mean(dtype=np.float64)) for t in (terms, energies_of(plugin, z, context)))
    if not np.isclose(told, true, rtol=_RTOL, atol=_ATOL):
        raise _FlawError(
            f"advance: foretells the energy {told:.6g}, and energies says {true:.6g} of that state"
        )
    return f"{told:.4g} as foretold"


def _serve(
    plugin: IRPPlugin,
    jobs: Sequence[Job],
    capacity: int,
    history: int = 0,
    long_step_ns: int = LONG_STEP_NS,
) -> tuple[list[Any], Mapping[int, Finished]]:
    """Energies and ends of jobs, from a refiner with so many slots."""
    ring = native.Ring(8192)
    reader = native.RingReader(ring)
    states = open_slots(plugin, capacity=capacity, threads=1, history=history, long_step_ns=long_step_ns)
    refiner = CpuRefiner(states, plugin.example, ring=ring, plugin_number=0, now_ns=time.monotonic_ns)
    waiting, finished = list(jobs), {}
    while waiting or refiner.live:
        count = refiner.free
        for done in refiner.admit(waiting[:count]) + refiner.tick():
            if done.error is not None:
                raise done.error
            finished[done.job.run_id] = done
        del waiting[:count]
    records = reader.drain(8192)
    return [records["E"][records["run_id"] == job.run_id] for job in jobs], finished


def _summary(finished: Finished) -> native.RunSummary:
    if finished.summary is None:
        raise _FlawError("a run ended without a state")
    return finished.summary


def _close(found: Any, expected: Sequence[float], where: str) -> None:
    if not np.allclose(found, np.asarray(expected), rtol=_RTOL, atol=_ATOL, equal_nan=True):
        worst = float(np.nanmax(np.abs(found - np.asarray(expected))))
        raise _FlawError(f"{where} energies differ from the reference loop's by up to {worst:.3g}")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return bool(np.array_equal(one, other, equal_nan=one.dtype.kind in "fc"))
    return bool(one == other)


def _arrays_of(value: Any, path: str = "state", depth: int = 3) -> dict[str, Any]:
    """Copies of the arrays and plain values in a state, by where they stand."""
    if isinstance(value, np.ndarray):
        return {path: value.copy()}
    if isinstance(value, IRPState):
        return _arrays_of(value.x, f"{path}.x") | _arrays_of(value.meta, f"{path}.meta")
    if isinstance(value, Mapping) and depth:
        parts = [_arrays_of(item, f"{path}[{key!r}]", depth - 1) for key, item in value.items()]
    elif isinstance(value, list | tuple) and depth:
        parts = [_arrays_of(item, f"{path}[{key}]", depth - 1) for key, item in enumerate(value)]
    else:
        return {path: value} if isinstance(value, int | float | str | bool) else {}
    return {name: item for part in parts for name, item in part.items()}


def _unchanged(state: IRPState, before: Mapping[str, Any], method: str) -> None:
    after = _arrays_of(state)
    for path, value in before.items():
        if path not in after or not _same(value, after[path]):
            raise _FlawError(f"{method}: changes {path} of the state that it is given; return a new one")
