"""The errors of sage_edge: a small tree, each class with a stable ``code``.

Only the service room knows HTTP; it maps these classes to status codes in one table.
"""

from __future__ import annotations

from collections.abc import Mapping


class SageError(Exception):
    """Root of every error that sage_edge raises on purpose."""

    code = "internal"


class ConfigError(SageError):
    """A setting, a policy or a file named by one is unusable. Stops the start."""

    code = "bad_config"


class EngineError(SageError):
    """An engine file is missing, broken, or does not fit; or the backend that should run it is not here."""

    code = "bad_engine"


class DeviceError(SageError):
    """The GPU or its driver refused, failed or is not here; the message names the call."""

    code = "device_failed"


class InputError(SageError):
    """A caller sent something that cannot be used; the message says what was expected and what came."""

    code = "bad_input"


class ShapeError(InputError):
    """An array has the wrong shape, dtype or layout."""

    code = "bad_shape"


class ParameterError(InputError):
    """A request parameter is not a number, or out of range; the message names it."""

    code = "bad_parameter"


class ProblemError(InputError):
    """A problem has no meaning: not convex, not a number, limits that cross; the message says what came."""

    code = "bad_problem"


class InfeasibleError(InputError):
    """A problem has no solution, and that is known before it is refined; the message says why."""

    code = "infeasible"


class FrameError(InputError):
    """A body is not a frame that can be decoded."""

    code = "bad_frame"


class FrameTooLargeError(InputError):
    """A body, or what it would take to serve it, is above the limit: it will never be served here."""

    code = "frame_too_large"


class BodyTimeoutError(InputError):
    """A body did not arrive in time."""

    code = "body_timeout"


class MediaTypeError(InputError):
    """The Content-Type of a body is not one that the route takes."""

    code = "unsupported_media_type"


class NotAcceptableError(InputError):
    """None of the accepted media types can be produced."""

    code = "not_acceptable"


class UnknownPluginError(InputError):
    """No plugin of that name is loaded."""

    code = "unknown_plugin"


class PluginError(SageError):
    """A plugin broke its contract: a method raised, or returned what it must not; the message names both."""

    code = "plugin_failed"


class CapacityError(SageError):
    """Nothing is free: a full queue or slot table. Try again later."""

    code = "queue_full"


class MemoryFullError(CapacityError):
    """What is set aside for requests of any size is in use. Try again later."""

    code = "memory_full"


class BudgetError(SageError):
    """The service's energy account cannot pay for even the initial answer. Try again later."""

    code = "budget_exhausted"


class LedgerError(SageError):
    """A booking would break the conservation of energy: a defect of ours."""

    code = "ledger"


class SupersededError(SageError):
    """A newer frame of the same stream took the request's place while it was waiting."""

    code = "superseded"


class UnknownRequestError(InputError):
    """No request of that name is running or remembered."""

    code = "unknown_request"


class UnauthorizedError(InputError):
    """A caller without a key that is known here."""

    code = "unauthorized"


class RateLimitError(CapacityError):
    """A caller asks more often than it may.

    Attributes:
        wait_s: Seconds until it may ask again.
    """

    code = "rate_limited"

    def __init__(self, message: str, wait_s: float = 1.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class DeadlineError(SageError):
    """The deadline is too near for even the initial answer. Try again with a later one.

    Attributes:
        bound_ms: What the initial answer would have taken, in parts that add up to the bound that decided.
        may_fit: Whether it was ever as fast as it would have had to be.
    """

    code = "deadline_too_short"

    def __init__(
        self, message: str, bound_ms: Mapping[str, float] | None = None, *, may_fit: bool = False
    ) -> None:
        super().__init__(message)
        self.bound_ms = dict(bound_ms or {})
        self.may_fit = may_fit


class BuildingError(SageError):
    """The engines are being built at the start, and nothing is served before they are. Try again later."""

    code = "building_engine"


class ClosingError(SageError):
    """The service is draining and takes no new work."""

    code = "draining"


class CancelledRequestError(SageError):
    """The caller gave the request up before it was answered."""

    code = "cancelled"
