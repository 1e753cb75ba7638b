"""From a document to a control problem: what ``POST /v1/refine/control`` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import blake2b
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import numpy as np

from sage_edge import native
from sage_edge.control import MPC, Limits, PlanProblem, Problem, QpProblem, Track, World
from sage_edge.control.line import Floats
from sage_edge.errors import ParameterError, ShapeError
from sage_edge.memory import Account, Kept
from sage_edge.messages import named, shown

T = TypeVar("T")

#: Largest number of variables, and of rows, of a quadratic program that is taken from outside; of an MPC,
#: of states and of inputs over the whole horizon.
MAX_SIZE = 1024
#: Solvers and controllers that are kept with their factors, at most, and the memory that they may take.
_KEPT, _KEPT_BYTES = 32, 32 << 20
#: Bytes that it takes for each entry of a QP's matrices, and of an MPC's condensed ones,
_QP_BYTES, _MPC_BYTES = 72, 32
#: for each pair of a track's points, and of a plan's knots and obstacles,
_TRACK_BYTES, _PLAN_BYTES = 32, 64
#: for a plan's grid, and for any problem.
_GRID_BYTES, _LEAST_BYTES = 16 << 20, 64 << 10
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


def needed_bytes(document: Document) -> int:
    """Memory that a problem takes, its factors and iterates included, as far as its lengths tell.

    Of a document that ``read_problem`` will refuse it may be anything.
    """
    kind = document.get("kind")
    if isinstance(kind, np.ndarray):
        kind = kind.item() if kind.ndim == 0 else None
    if kind == "qp":
        n, m = (_length(document.get(name), MAX_SIZE) for name in ("q", "A"))
        return _QP_BYTES * n * (n + m) + _LEAST_BYTES
    if kind == "mpc":
        rows = document.get("B", [])
        states = _length(rows, MAX_SIZE)
        inputs = _length(rows[0], MAX_SIZE) if states else 0
        stages = min(_whole(document.get("N")), MAX_SIZE // max(1, states, inputs))
        n, m = stages * inputs, stages * (states + inputs)
        return _MPC_BYTES * n * (n + m) + _LEAST_BYTES
    if kind == "plan":
        knots, obstacles = min(_whole(document.get("knots")), 512) or 90, document.get("obstacles")
        return _PLAN_BYTES * knots * _length(obstacles, MAX_POINTS) + _GRID_BYTES
    return _TRACK_BYTES * _length(document.get("centre"), MAX_POINTS) ** 2 + _LEAST_BYTES


def _length(value: Any, most: int) -> int:
    """Of a list or an array, up to the most that is let in; 0 for anything else."""
    is_row = isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim > 0)
    return min(len(value), most) if is_row else 0


def _whole(value: Any) -> int:
    """A number, as JSON or an archive has it; 0 for anything that is none."""
    value = _plain(value)
    return int(value) if isinstance(value, (int, float)) and 0 <= value <= MAX_SIZE else 0


def _plain(value: Any) -> Any:
    """Numbers and strings out of the zero-dimensional arrays that an archive has for them."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _array(name: str, value: Any, dimensions: int, most: int = MAX_SIZE) -> Floats:
    """A contiguous float64 array; null in a list stands for no limit, and becomes NaN."""
    try:
        array = np.asarray(value, dtype=None if isinstance(value, np.ndarray) else np.float64)
        if array.ndim == dimensions and max(array.shape) <= most:  # no copy of what is too large
            return np.ascontiguousarray(array, np.float64)
    except (TypeError, ValueError, OverflowError) as exc:
        raise ShapeError(f"{name}: expected numbers in {dimensions} dimensions: {exc}") from exc
    raise ShapeError(f"{name}: expected {dimensions} dimensions of at most {most}, got {list(array.shape)}")


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


class _Shared(Generic[T]):
    """What is made once of the same matrices: the newest are kept, others while a request or stream has them.

    Threads: any.
    """

    def __init__(self) -> None:
        self._kept: Kept[T] = Kept(_KEPT, Account("solvers", _KEPT_BYTES))
        self._all: WeakValueDictionary[str, T] = WeakValueDictionary()
        self._lock = Lock()

    def get(self, arrays: Mapping[str, Floats], make: Callable[[], T], size: int, *others: Any) -> T:
        """What was made of these arrays and others, or is now, of so many bytes."""
        digest = blake2b(repr(others).encode())
        for name, array in arrays.items():
            digest.update(repr((name, array.shape)).encode())
            digest.update(array.tobytes())
        key = digest.hexdigest()
        with self._lock:
            found = self._all.get(key)
        found = make() if found is None else found
        with self._lock:
            self._all[key] = found
            self._kept.keep(key, found, size)
        return found


_solvers: _Shared[native.QpSolver] = _Shared()
_controllers: _Shared[MPC] = _Shared()


def _read_qp(values: Document) -> QpProblem:
    P, q = _array("P", values["P"], 2), _array("q", values["q"], 1)
    if not len(q) or P.shape != (len(q), len(q)):
        raise ShapeError(f"P: expected [{len(q)}, {len(q)}] to fit q, got {list(P.shape)}")
    A = None if "A" not in values else _array("A", values["A"], 2)
    if A is not None and A.shape[1] != len(q):
        raise ShapeError(f"A: expected [m, {len(q)}] to fit q, got {list(A.shape)}")
    matrices = {"P": P} if A is None else {"P": P, "A": A}
    solver = _solvers.get(matrices, lambda: native.QpSolver(P, A), needed_bytes({**values, "kind": "qp"}))
    limits = [_limit(name, values, side) for name, side in _SIDES]
    return QpProblem(solver, q, *limits, eps=_eps(values))


_SIDES = (("l", -np.inf), ("u", np.inf), ("lb", -np.inf), ("ub", np.inf))


def _read_mpc(values: Document) -> Problem:
    given: dict[str, Floats] = {}
    for name in ("A", "B", "Q", "R", "QN"):
        if name in values:
            given[name] = _array(name, values[name], 2) if name in "AB" else _weights(name, values[name])
    for name in ("x_min", "x_max", "u_min", "u_max"):
        limit = _limit(name, values, -np.inf if name.endswith("min") else np.inf)
        if limit is not None:
            given[name] = limit
    horizon = _count("N", values["N"], MAX_SIZE)
    widest = max(np.shape(values["A"])[0], np.shape(values["B"])[1])
    if horizon * widest > MAX_SIZE:
        raise ParameterError(
            f"N: expected at most {MAX_SIZE // widest} for {widest} states or inputs, got {horizon}"
        )
    eps = _eps(values)
    size = needed_bytes({**values, "kind": "mpc"})
    mpc = _controllers.get(given, lambda: MPC(**given, N=horizon, eps=eps), size, horizon, eps)
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
