"""What is installed here, which backend is used, why not the GPU, and what to do."""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sage_edge import native
from sage_edge.commands.options import EXIT_INPUT, Commands, add_command, add_settings, settings_of
from sage_edge.config import Settings
from sage_edge.errors import SageError
from sage_edge.plugins import open_plugin
from sage_edge.plugins.check import check_quickly
from sage_edge.runtime import CudaLoops, choose_loop

_PACKAGES = ("numpy", "onnxruntime", "fastapi", "uvicorn", "jsonschema", "pillow")


def add_parser(commands: Commands) -> None:
    """Add the command."""
    add_settings(add_command(commands, "doctor", "Say what is installed, what is used, and what to do.", run))


def run(options: argparse.Namespace) -> int:
    """Print the findings."""
    lines, ok = examine(settings_of(options))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if ok else EXIT_INPUT


def examine(settings: Settings) -> tuple[list[str], bool]:
    """Look at everything that serving needs.

    Returns:
        One line for each finding, and whether the service can run.
    """
    lines = [
        f"system      {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"{settings.thread_count} threads",
        "packages    " + ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        f"core        {len(native.HALT_REASONS)} halt reasons, {native.RECORD_DTYPE.itemsize}-byte records",
    ]
    checks = [
        _check(f"plugin      {name}", lambda name=name: _plugin(name, settings))  # type: ignore[misc]
        for name in settings.plugins
    ]
    checks.append(_check("telemetry   journal", lambda: _telemetry(settings)))
    lines += [line for line, _ in checks] + [
        "cuda        " + _cuda(),
        "gpu         " + _gpu(settings.backend),
    ]
    return lines, all(ok for _, ok in checks)


def _check(title: str, look: Callable[[], str]) -> tuple[str, bool]:
    try:
        return f"{title}: {look()}", True
    except SageError as exc:
        return f"{title}: NOT usable: {exc}", False


def _plugin(name: str, settings: Settings) -> str:
    """What runs its networks, and where its loop runs, if that is a question."""
    plugin = open_plugin(name, settings)
    check_quickly(plugin)
    choice = choose_loop(plugin, CudaLoops())
    if choice.program is not None:
        return f"{plugin.backend}, its loop on the GPU"
    return f"{plugin.backend}, its loop on the host: {choice.reason}" if choice.reason else plugin.backend


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _telemetry(settings: Settings) -> str:
    if not settings.telemetry_dir:
        return "in memory only, as set"
    folder = Path(settings.telemetry_dir)
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        return (
            f"{folder}: {nearest} is no folder that can be written to; serving works, records are kept "
            "in memory only and counted as lost; choose another --telemetry-dir"
        )
    return f"{folder}"


def _cuda() -> str:
    """Whether the core was built for GPUs, and which it finds."""
    if not native.BUILT_WITH_CUDA:
        return "not built in: no CUDA compiler when this was built; `SAGE_CUDA=ON make build` insists on one"
    devices = ", ".join(native.cuda_devices())
    return f"built in; {devices or f'no device that it can use: {native.cuda_refusal()}'}"


def _gpu(backend: str) -> str:
    """Which backend serves, and what stands between this machine and its GPU."""
    missing = _missing_for_gpu()
    if backend == "tensorrt":
        return (
            f"asked for, but {missing}" if missing else "used by the networks; see `sage-edge engines verify`"
        )
    if backend != "cpu":
        return f"the backend {backend} runs the networks"
    return f"not used: {missing or 'backend is cpu'}; engines run on the CPU"


def _missing_for_gpu() -> str | None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver here (libcuda.so.1 not found)"
    return None if importlib.util.find_spec("tensorrt") else "a driver is here, TensorRT is not"
