"""Counts the multiply-accumulates of an ONNX graph, by running it once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime


def count_macs(path: Path) -> int:
    """Count the multiply-accumulates of all convolutions, for one frame.

    Everything else in these graphs (pooling, gathering, activations) is below a hundredth of it.
    """
    model = onnx.load(path)
    kernels = {weight.name: weight.dims for weight in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in convolutions)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    frame = {value.name: np.zeros([1, *value.shape[1:]], np.float32) for value in session.get_inputs()}
    sizes = [out.size for out in session.run(None, frame)] if convolutions else []
    return sum(
        int(size * np.prod(kernels[node.input[1]][1:]))
        for node, size in zip(convolutions, sizes, strict=True)
    )
