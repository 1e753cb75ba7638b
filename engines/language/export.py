"""Write the ONNX files and the tokenizer of a checkpoint; ``calibrate`` writes the manifest beside them.

``python -m engines.language.export --config FILE --checkpoint FILE --out DIR``

Large weights are kept as int8, each output channel (or word piece) with a scale of its own, and made float32
where they are used: a quarter of the bytes, the arithmetic of float32.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from engines.language.config import NetConfig, Recipe, load_recipe
from engines.language.graphs import EnergyGraph, StepGraph
from engines.language.nets import Reader, base_folder
from engines.language.train import load_weights
from engines.language.vocabulary import pruned
from sage_edge.plugins.language.state import MEANING

OPSET = 18
MAX_BATCH = 1024
#: Candidate windows of a question: the rows of a state.
WINDOWS = 32
#: Weights with fewer numbers stay as they are.
LARGE = 1 << 15


def export_all(net: Reader, out: Path) -> None:
    """Write ``step.onnx`` and ``energy.onnx``; only the batch is dynamic."""
    out.mkdir(parents=True, exist_ok=True)
    inputs = example_inputs(net.config)
    onnx.save(quantised(_exported(StepGraph(net), inputs, ["delta", "energy"])), out / "step.onnx")
    judged = {name: inputs[name] for name in ("z", "prior", "place", "facts")}
    onnx.save(_exported(EnergyGraph(), judged, ["energy"]), out / "energy.onnx")


def example_inputs(config: NetConfig) -> dict[str, Tensor]:
    """What the step takes, by name."""
    begin = config.question_pieces + 2
    ids = torch.randint(4, config.vocabulary, (2, WINDOWS, config.length)).float()
    return {
        "z": torch.zeros(2, WINDOWS, MEANING + config.width),
        "ids": ids,
        "prior": torch.full((2, WINDOWS), 1 / WINDOWS),
        "place": torch.arange(WINDOWS).float().repeat(2, 1) * config.stride,
        "facts": torch.tensor([[float(begin), 0.1, 1.0, 0.0, 0.5, 0.2]]).repeat(2, 1),
        "step_size": torch.ones(2),
    }


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its large weights as int8 behind DequantizeLinear."""
    axes = _channel_axes(model)
    for weight in list(model.graph.initializer):
        if weight.name not in axes:
            continue
        values, axis = numpy_helper.to_array(weight), axes[weight.name]
        others = tuple(n for n in range(values.ndim) if n != axis)
        scale = np.maximum(np.abs(values).max(axis=others), 1e-12).astype(np.float32) / 127
        shaped = scale.reshape([-1 if n == axis else 1 for n in range(values.ndim)])
        whole = np.rint(values / shaped).astype(np.int8)
        name = weight.name
        model.graph.initializer.remove(weight)
        model.graph.initializer.extend(
            [numpy_helper.from_array(whole, f"{name}.int8"), numpy_helper.from_array(scale, f"{name}.scale")]
        )
        node = helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], axis=axis)
        model.graph.node.insert(0, node)
    return model


def _channel_axes(model: onnx.ModelProto) -> dict[str, int]:
    """The axis of output channels, or of word pieces, of each large weight."""
    axes = {}
    large = {w.name for w in model.graph.initializer if np.prod(w.dims) >= LARGE and len(w.dims) == 2}
    for node in model.graph.node:
        if node.op_type == "Gather" and node.input[0] in large:
            axes[node.input[0]] = 0
        elif node.op_type == "MatMul" and node.input[1] in large:
            axes[node.input[1]] = 1
        elif node.op_type == "Gemm" and node.input[1] in large:
            turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            axes[node.input[1]] = 0 if turned else 1
    return axes


def _exported(graph: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # raised inside torch's exporter
        program = torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=tuple({0: torch.export.Dim("batch", min=1, max=MAX_BATCH)} for _ in inputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]  # stack traces, which name the machine's folders
        part.doc_string = ""
    return model


def write_tokenizer(recipe: Recipe, out: Path) -> None:
    """Write ``tokenizer.json``, with the recipe's vocabulary."""
    tokenizer, _ = pruned(base_folder(recipe.net.base) / "tokenizer.json", recipe.net.vocabulary)
    tokenizer.save(str(out / "tokenizer.json"))


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the recipe, a TOML file")
    parser.add_argument("--checkpoint", type=Path, required=True, help="what training wrote")
    parser.add_argument("--out", type=Path, required=True, help="where the files go")
    args = parser.parse_args()
    recipe = load_recipe(args.config)
    export_all(load_weights(recipe, args.checkpoint), args.out)
    write_tokenizer(recipe, args.out)


if __name__ == "__main__":
    main()
