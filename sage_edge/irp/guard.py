"""Calls of a plugin's methods, and what they return: whatever goes wrong names the plugin and the method."""

from __future__ import annotations

from math import inf, isfinite
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from sage_edge.errors import InputError, PluginError, SageError
from sage_edge.irp.state import Answer, IRPState
from sage_edge.native import HALT_REASONS

if TYPE_CHECKING:
    from sage_edge.irp.plugin import IRPPlugin


class calling:  # noqa: N801 - reads as what it does; a generator would cost more than many a call
    """Around a call of a plugin's method.

    Raises:
        SageError: What the method raised on purpose, as it is.
        PluginError: Anything else that it raised, by its class: callers see it, so that its words stay in the
            log, as the error's cause.
    """

    __slots__ = ("_method", "_plugin")

    def __init__(self, plugin: str, method: str) -> None:
        self._plugin, self._method = plugin, method

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Name the plugin and the method."""
        if isinstance(error, Exception | SystemExit) and not isinstance(error, SageError):
            raise failure(error, self._plugin, self._method) from error


def failure(error: BaseException, plugin: str, method: str) -> PluginError:
    """What a method raised, told by its class; its words are the cause's."""
    told = PluginError(f"{plugin}.{method}: raised {type(error).__name__}")
    told.__cause__ = error
    return told


def state_of(value: Any, plugin: str, method: str, step_idx: int) -> IRPState:
    """A state that a method returned.

    Raises:
        PluginError: It is no IRPState, or not of the step that it should be of.
    """
    if not isinstance(value, IRPState):
        raise PluginError(f"{plugin}.{method}: expected an IRPState, got {type(value).__name__}")
    if value.step_idx != step_idx:
        raise PluginError(f"{plugin}.{method}: expected step_idx {step_idx}, got {value.step_idx}")
    return value


def number_of(value: Any, plugin: str, method: str) -> float:
    """A number that a method returned; NaN and infinity are numbers here.

    Raises:
        PluginError: It is none.
    """
    if type(value) is float:
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        return float(value)
    raise PluginError(f"{plugin}.{method}: expected a float, got {type(value).__name__}")


def size_of(plugin: IRPPlugin, x0: Any) -> float:
    """How large a prepared input is, as its plugin says.

    Raises:
        PluginError: It does not say.
    """
    with calling(plugin.name, "input_size"):
        return number_of(plugin.input_size(x0), plugin.name, "input_size")


def needed_bytes_of(plugin: IRPPlugin, frame: Any) -> int:
    """Memory that a request of a frame takes, as its plugin says.

    Raises:
        PluginError: It does not say.
    """
    with calling(plugin.name, "needed_bytes"):
        needed = number_of(plugin.needed_bytes(frame), plugin.name, "needed_bytes")
    if not 0 <= needed < inf:
        raise PluginError(f"{plugin.name}.needed_bytes: expected 0 or more, got {needed}")
    return int(needed)


def reason_of(value: Any, plugin: str) -> int:
    """Code of the halt reason that ``halt`` returned; 0 for None.

    Raises:
        PluginError: It is no halt reason.
    """
    if value in HALT_REASONS:
        return HALT_REASONS.index(value)
    known = ", ".join(reason for reason in HALT_REASONS if reason)
    raise PluginError(f"{plugin}.halt: expected None or one of {known}, got {value!r}")


def is_plain_float32(value: Any) -> TypeGuard[NDArray[np.float32]]:
    """Whether a value is an array of float32 in C order already."""
    return type(value) is np.ndarray and value.dtype == np.float32 and value.flags.c_contiguous


def float32_of(
    value: Any, plugin: str, method: str, name: str, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """An array that a method returned, as float32 in C order; converted where it is something else.

    Raises:
        PluginError: It is no array of numbers, or has another shape.
    """
    if is_plain_float32(value) and value.shape == shape:  # as nearly always
        return value
    try:
        array = np.ascontiguousarray(value, np.float32)
    except (TypeError, ValueError) as exc:
        raise PluginError(f"{plugin}.{method}: {name}: expected an array of numbers: {exc}") from exc
    if array.shape != shape:
        raise PluginError(f"{plugin}.{method}: {name}: expected shape {list(shape)}, got {list(array.shape)}")
    return array


def answer_of(value: Any, plugin: str, method: str = "decode") -> Answer:
    """An answer that a method returned; a bare array counts as the answer's array.

    Raises:
        PluginError: It is neither, or a mask whose numbers are not those of its classes.
    """
    if isinstance(value, np.ndarray):
        value = Answer(value)
    if not isinstance(value, Answer) or not isinstance(value.array, np.ndarray):
        kind = type(value.array if isinstance(value, Answer) else value).__name__
        raise PluginError(f"{plugin}.{method}: expected an Answer or an array, got {kind}")
    if value.array.dtype.kind not in "biufc":
        raise PluginError(f"{plugin}.{method}: expected an array of numbers, got {value.array.dtype}")
    if value.palette:
        mask, count = value.array, len(value.classes)
        is_mask = mask.dtype == np.uint8 and mask.ndim == 2 and mask.max(initial=0) < count
        if not is_mask or len(value.palette) != count:
            raise PluginError(
                f"{plugin}.{method}: a mask: expected uint8 [H, W] of numbers below {count}, a colour and a "
                f"name for each; got {mask.dtype} {list(mask.shape)} up to {mask.max(initial=0)}"
            )
    return value


def quality_of(plugin: IRPPlugin, E_norm: float) -> float | None:
    """What a plugin promises of an answer with this energy; None where it promises nothing.

    Raises:
        PluginError: It is no number between 0 and 1.
    """
    with calling(plugin.name, "trust"):
        promised = plugin.trust(E_norm)
    quality = None if promised is None else number_of(promised, plugin.name, "trust")
    if quality is None or not isfinite(quality):
        return None
    if not 0.0 <= quality <= 1.0:
        raise PluginError(f"{plugin.name}.trust: expected 0 to 1, got {quality}")
    return quality


def example_of(plugin: IRPPlugin) -> Any:
    """A prepared input of the plugin's own.

    Raises:
        PluginError: It has none, or cannot use it.
    """
    try:
        with calling(plugin.name, "example"):
            return plugin.example()
    except InputError as exc:
        raise PluginError(f"{plugin.name}.example: its own prepare refuses it: {exc}") from exc
