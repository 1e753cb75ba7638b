"""Loaded networks. On a CPU an engine is an ONNX Runtime session."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sage_edge.errors import EngineError
from sage_edge.irp.engine import Enqueue, Float32, Tensors, TensorSpec, require_ends
from sage_edge.irp.recipe import read_onnx

# ONNX Runtime would report its use to its maker; it asks for this word when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort


class OnnxEngine:
    """One ONNX graph on the CPU, with named inputs and outputs and a dynamic batch axis.

    Threads: ``run`` may be called from several threads; each call is independent.
    """

    backend = "onnxruntime-cpu"
    ends: Mapping[str, TensorSpec] = {}

    def __init__(self, path: Path, *, threads: int = 1, sha256: str | None = None) -> None:
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

    def run(self, tensors: Tensors) -> dict[str, Float32]:
        """Run the graph on float32 arrays that share their first axis; returns new arrays by name."""
        return dict(zip(self.outputs, self._session.run(self.outputs, dict(tensors)), strict=True))

    def bind(self, tensors: Mapping[str, Any]) -> Enqueue:
        """There is no loop on a CPU that would bind it; raises EngineError."""
        raise EngineError(f"{self.backend}: works on host arrays alone; there is nothing to bind")


@cache
def _share_memory() -> None:
    """Give the process one pool of scratch memory; else each session keeps the most that it ever took."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, None)
