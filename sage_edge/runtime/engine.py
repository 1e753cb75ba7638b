"""Loaded networks. On a CPU an engine is an ONNX Runtime session."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sage_edge.errors import EngineError
from sage_edge.runtime.recipe import read_onnx

# ONNX Runtime would report its use to its maker; it asks for this word when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

Tensors = Mapping[str, NDArray[np.float32]]


class Engine(Protocol):
    """A network with named inputs and outputs that share their first axis, the batch.

    Threads: ``run`` may be called from several threads.
    """

    @property
    def backend(self) -> str:
        """What runs it, such as "onnxruntime-cpu"."""

    @property
    def inputs(self) -> Mapping[str, tuple[Any, ...]]:
        """Shape of each input; its first entry names the batch."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs."""

    def require(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Check the names of the network's ends.

        Raises:
            EngineError: A name is missing or unexpected.
        """

    def run(self, tensors: Tensors) -> dict[str, NDArray[np.float32]]:
        """Run the network on float32 arrays; returns new arrays by name."""


def require_ends(engine: Engine, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """What every engine's ``require`` does."""
    if set(engine.inputs) != set(inputs) or not set(outputs) <= set(engine.outputs):
        raise EngineError(
            f"engine: expected inputs {sorted(inputs)} and outputs {sorted(outputs)}, "
            f"got {sorted(engine.inputs)} and {sorted(engine.outputs)}"
        )


class OnnxEngine:
    """One ONNX graph on the CPU, with named inputs and outputs and a dynamic batch axis.

    Threads: ``run`` may be called from several threads; each call is independent.
    """

    backend = "onnxruntime-cpu"

    def __init__(self, path: Path, *, threads: int, sha256: str | None = None) -> None:
        """Load and check a file.

        Args:
            path: The ONNX file.
            threads: Threads for one operator.
            sha256: The digest that the file must have, as hex; None accepts any.

        Raises:
            EngineError: The file is missing, broken, or not the one that the digest names.
        """
        content = read_onnx(path, sha256)
        self.sha256 = hashlib.sha256(content).hexdigest()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A spinning pool would take the cores that decode the next frame.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        _share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
        try:
            self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # onnxruntime raises a class of its own for each status
            raise EngineError(f"{path}: not a usable ONNX file: {str(exc).splitlines()[0]}") from exc
        self.inputs = {node.name: tuple(node.shape) for node in self._session.get_inputs()}
        self.outputs = [node.name for node in self._session.get_outputs()]

    def require(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Check the names of the graph's ends.

        Raises:
            EngineError: A name is missing or unexpected.
        """
        require_ends(self, inputs, outputs)

    def run(self, tensors: Tensors) -> dict[str, NDArray[np.float32]]:
        """Run the graph on float32 arrays that share their first axis; returns new arrays by name."""
        return dict(zip(self.outputs, self._session.run(self.outputs, dict(tensors)), strict=True))


@cache
def _share_memory() -> None:
    """Give the process one pool of scratch memory; else each session keeps the most that it ever took."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, None)
