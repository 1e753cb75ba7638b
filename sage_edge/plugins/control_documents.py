"""From a document to a control problem: what ``POST /v1/refine/control`` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from sage_edge import native
from sage_edge.control import MPC, Limits, PlanProblem, Problem, QpProblem, Track, World
from sage_edge.control.line import Floats
from sage_edge.errors import ParameterError, ShapeError
from sage_edge.messages import named, shown

#: Largest number of variables, and of rows, of a quadratic program that is taken from outside; of an MPC,
#: of states and of inputs over the whole horizon.
MAX_SIZE = 1024
#: Solvers and controllers that are kept with their factors, at most.
_KEPT = 32
#: Largest number of obstacles or points of a track.
MAX_POINTS = 2000
Document = Mapping[str, Any]


def read_problem(document: Document) -> Problem:
    """Check a document and make it a problem.

    Args:
        document: Named values, as JSON has them or as arrays; ``kind`` is one of qp, mpc, plan, track.

    Raises:
        ParameterError: A value is missing, unknown or out of range.
        ShapeError: An array has another shape or is not numeric.
        ProblemError: The problem is not convex, or its limits contradict each other.
        InfeasibleError: There is no way from start to goal.
    """
    values = {name: _plain(value) for name, value in document.items() if value is not None}
    kind = values.pop("kind", None)
    if not isinstance(kind, str) or kind not in _READERS:
        raise ParameterError(f"problem.kind: expected one of {', '.join(_READERS)}, got {shown(kind)}")
    if "stream_id" in values:
        raise ParameterError("problem.stream_id: expected it beside the problem, as for every plugin")
    required, optional, read = _READERS[kind]
    missing, unknown = required - set(values), set(values) - required - optional
    if missing or unknown:
        raise ParameterError(
            f"problem: a {kind} needs {sorted(required)} and may have {sorted(optional)}; "
            f"missing {named(missing)}, unknown {named(unknown)}"
        )
    return read(values)


def _plain(value: Any) -> Any:
    """Numbers and strings out of the zero-dimensional arrays that an archive has for them."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _array(name: str, value: Any, dimensions: int, most: int = MAX_SIZE) -> Floats:
    """A contiguous float64 array; null in a list stands for no limit, and becomes NaN."""
    try:
        array = np.ascontiguousarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as exc:
        raise ShapeError(f"{name}: expected numbers in {dimensions} dimensions: {exc}") from exc
    if array.ndim != dimensions or max(array.shape) > most:
        raise ShapeError(
            f"{name}: expected {dimensions} dimensions of at most {most}, got {list(array.shape)}"
        )
    return array


def _limit(name: str, values: Document, missing: float) -> Floats | None:
    """A vector of limits, null where there is none; None when it is not given."""
    if name not in values:
        return None
    given = values[name]
    if isinstance(given, list):
        given = [missing if entry is None else entry for entry in given]
    return _array(name, given, 1)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ParameterError(f"{name}: expected a number, got {shown(value)}")
    try:
        return float(value)
    except OverflowError as exc:
        raise ParameterError(f"{name}: expected a number of at most 1.8e308, got more") from exc


def _count(name: str, value: Any, most: int) -> int:
    number = _number(name, value)
    if not (number.is_integer() and 1 <= number <= most):
        raise ParameterError(f"{name}: expected a whole number from 1 to {most}, got {shown(value)}")
    return int(number)


def _eps(values: Document) -> float:
    eps = _number("eps", values.get("eps", 1e-3))
    if not 0 < eps < float("inf"):
        raise ParameterError(f"eps: expected more than 0, got {eps}")
    return eps


@lru_cache(maxsize=_KEPT)
def _solver(P: bytes, A: bytes, n: int) -> native.QpSolver:
    """The solver of two matrices, with its factors; shared by all problems that have them."""
    return native.QpSolver(np.frombuffer(P).reshape(-1, n), np.frombuffer(A).reshape(-1, n) if A else None)


def _read_qp(values: Document) -> QpProblem:
    P, q = _array("P", values["P"], 2), _array("q", values["q"], 1)
    if not len(q) or P.shape != (len(q), len(q)):
        raise ShapeError(f"P: expected [{len(q)}, {len(q)}] to fit q, got {list(P.shape)}")
    A = None if "A" not in values else _array("A", values["A"], 2)
    if A is not None and A.shape[1] != len(q):
        raise ShapeError(f"A: expected [m, {len(q)}] to fit q, got {list(A.shape)}")
    solver = _solver(P.tobytes(), b"" if A is None else A.tobytes(), len(q))
    limits = [_limit(name, values, side) for name, side in _SIDES]
    return QpProblem(solver, q, *limits, eps=_eps(values))


_SIDES = (("l", -np.inf), ("u", np.inf), ("lb", -np.inf), ("ub", np.inf))


@lru_cache(maxsize=_KEPT)
def _mpc(key: tuple[tuple[str, tuple[int, ...], bytes] | None, ...], N: int, eps: float) -> MPC:
    """The controller of a model, with its factors; shared by all problems that have it."""
    given = {part[0]: np.frombuffer(part[2]).reshape(part[1]) for part in key if part}
    return MPC(given.pop("A"), given.pop("B"), given.pop("Q"), given.pop("R"), N, eps=eps, **given)


def _read_mpc(values: Document) -> Problem:
    parts: list[tuple[str, tuple[int, ...], bytes] | None] = []
    for name in ("A", "B", "Q", "R", "QN"):
        if name in values:
            array = _array(name, values[name], 2) if name in "AB" else _weights(name, values[name])
            parts.append((name, array.shape, array.tobytes()))
    for name in ("x_min", "x_max", "u_min", "u_max"):
        limit = _limit(name, values, -np.inf if name.endswith("min") else np.inf)
        parts.append(None if limit is None else (name, limit.shape, limit.tobytes()))
    horizon = _count("N", values["N"], MAX_SIZE)
    widest = max(np.shape(values["A"])[0], np.shape(values["B"])[1])
    if horizon * widest > MAX_SIZE:
        raise ParameterError(
            f"N: expected at most {MAX_SIZE // widest} for {widest} states or inputs, got {horizon}"
        )
    mpc = _mpc(tuple(parts), horizon, _eps(values))
    wanted = [
        None if values.get(name) is None else _weights(name, values[name]) for name in ("x_ref", "u_ref")
    ]
    shift = values.get("shift", True)
    if not isinstance(shift, bool):
        raise ParameterError(f"shift: expected true or false, got {shown(shift)}")
    return mpc.problem(_array("x0", values["x0"], 1), *wanted, shift=shift)


def _weights(name: str, value: Any) -> Floats:
    """One row, or a row for each: a weight matrix or its diagonal, a reference or those of all stages."""
    is_row = isinstance(value, (list, np.ndarray)) and len(value) > 0 and not np.iterable(value[0])
    return _array(name, value, 1 if is_row else 2)


def _limits(value: Any, defaults: Limits) -> Limits:
    if value is None:
        return defaults
    names = Limits.__slots__
    if not isinstance(value, dict) or not set(value) <= set(names):
        raise ParameterError(f"limits: expected some of {', '.join(names)}, got {shown(value)}")
    given = {name: _number(f"limits.{name}", number) for name, number in value.items()}
    return Limits(**{name: given.get(name, getattr(defaults, name)) for name in names})


def _read_plan(values: Document) -> PlanProblem:
    extra = {name: _number(name, values[name]) for name in ("bending_weight", "cell_m") if name in values}
    world = World(
        _array("start", values["start"], 1),
        _array("goal", values["goal"], 1),
        [] if values["obstacles"] == [] else _array("obstacles", values["obstacles"], 2, MAX_POINTS),
        _number("robot_radius_m", values["robot_radius_m"]),
        _limits(values.get("limits"), Limits()),
        knots=_count("knots", values.get("knots", 90), 512),
        **extra,
    )
    return PlanProblem(world)


def _read_track(values: Document) -> PlanProblem:
    track = Track(
        _array("centre", values["centre"], 2, MAX_POINTS),
        _array("right_m", values["right_m"], 1, MAX_POINTS),
        _array("left_m", values["left_m"], 1, MAX_POINTS),
        margin_m=_number("margin_m", values.get("margin_m", 0.75)),
        limits=_limits(values.get("limits"), Limits(speed_m_s=80.0, acceleration_m_s2=10.0)),
    )
    return PlanProblem(track)


_Reader = Callable[[Document], Problem]
_READERS: dict[str, tuple[frozenset[str], frozenset[str], _Reader]] = {
    "qp": (frozenset({"P", "q"}), frozenset({"A", "l", "u", "lb", "ub", "eps"}), _read_qp),
    "mpc": (
        frozenset({"A", "B", "Q", "R", "N", "x0"}),
        frozenset({"QN", "x_ref", "u_ref", "x_min", "x_max", "u_min", "u_max", "eps", "shift"}),
        _read_mpc,
    ),
    "plan": (
        frozenset({"start", "goal", "obstacles", "robot_radius_m"}),
        frozenset({"limits", "knots", "bending_weight", "cell_m"}),
        _read_plan,
    ),
    "track": (frozenset({"centre", "right_m", "left_m"}), frozenset({"margin_m", "limits"}), _read_track),
}


def example_problem() -> Problem:
    """A small problem to warm up with: a double integrator that is driven to rest."""
    return _example_mpc().problem([1.0, 0.0])


@lru_cache(maxsize=1)
def _example_mpc() -> MPC:
    return MPC([[1.0, 0.1], [0.0, 1.0]], [[0.005], [0.1]], [1.0, 0.1], [0.1], 10, u_min=[-1.0], u_max=[1.0])
