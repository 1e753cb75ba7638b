"""The one door to the TensorRT module: 10.3 to 11.4, and TensorRT-RTX, which has the shape of 11."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from sage_edge.errors import EngineError

log = logging.getLogger(__name__)

#: Modules to look for, best first, and the oldest version of each that has every name used here.
_OLDEST = {"tensorrt": (10, 3), "tensorrt_rtx": (1, 0), "tensorrt_rtx_bindings": (1, 0)}
_LEVELS = {"INTERNAL_ERROR": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.WARNING}


class TensorRT(NamedTuple):
    """The TensorRT that is installed.

    Attributes:
        module: The module itself, called ``trt`` where it is used.
        label: Its name and version, such as "tensorrt-10.3.0".
        logger: Takes its messages; has to outlive everything that it makes.
    """

    module: Any
    label: str
    logger: Any

    @property
    def is_rtx(self) -> bool:
        """Whether this is TensorRT-RTX: no timing cache, and not for Jetson boards."""
        return self.label.startswith("tensorrt_rtx")


def open_tensorrt(import_module: Callable[[str], Any] = importlib.import_module) -> TensorRT:
    """Import TensorRT, if it is here and new enough.

    Raises:
        EngineError: It is not installed, does not load, or is too old; says what to do.
    """
    for name, oldest in _OLDEST.items():
        try:
            module = import_module(name)
        except ModuleNotFoundError as exc:
            if exc.name != name:
                raise EngineError(f"{name} is installed but does not load: {exc}") from exc
            continue
        except (ImportError, OSError) as exc:
            raise EngineError(f"{name} is installed but does not load: {exc}") from exc
        _require(name, module.__version__, oldest)
        label = f"{name.removesuffix('_bindings')}-{module.__version__}"
        return TensorRT(module, label, _make_logger(module))
    raise EngineError(
        "TensorRT is not installed: on a Jetson install python3-libnvinfer and make the virtual environment "
        "with --system-site-packages; elsewhere use NVIDIA's packages; or set backend = cpu"
    )


def _require(name: str, version: str, oldest: tuple[int, int]) -> None:
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < oldest:
        wanted = ".".join(map(str, oldest))
        raise EngineError(f"{name}: expected {wanted} or newer (JetPack 6.1 has 10.3), got {version}")


def _make_logger(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc] # the module is known only now
        """Events of our log instead of lines on stderr; keeps errors for the exception that follows."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Take one message; called by TensorRT, from any thread."""
            level = _LEVELS.get(severity.name)
            if level is None:
                return
            log.log(level, "%s", message)
            if level == logging.ERROR:
                self.errors.append(message)

        def forget(self) -> None:
            """Begin something whose errors are its own."""
            self.errors.clear()

        def why(self) -> str:
            """The first error since then, which is the cause of the others."""
            return self.errors[0] if self.errors else "TensorRT did not say why; the log may"

    return Log()
