"""Write edges.onnx, a network of two Sobel filters: ``python make_net.py``; needs the package onnx."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SOBEL = np.array([[[[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]], [[[-1, -2, -1], [0, 0, 0], [1, 2, 1]]]], np.float32)


def make() -> onnx.ModelProto:
    """Frame [n, 1, H, W] in [0, 1] -> scores [n, 2, H, W]: a threshold, and the length of the gradient."""
    nodes = [
        helper.make_node("Conv", ["frame", "sobel"], ["gradient"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceL2", ["gradient", "axis"], ["edge"], keepdims=1),
        helper.make_node("Mul", ["edge", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "threshold"], ["plain"]),
        helper.make_node("Concat", ["plain", "edge"], ["scores"], axis=1),
    ]
    constants = {
        "sobel": SOBEL,
        "axis": np.array([1], np.int64),
        "zero": np.array(0, np.float32),
        "threshold": np.array(0.6, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "edges",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["n", 1, 128, 128])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2, 128, 128])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    onnx.save(make(), Path(__file__).parent / "edges" / "edges.onnx")
