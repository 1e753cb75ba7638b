"""Write the ONNX files of a checkpoint; ``calibrate`` writes the manifest that goes with them.

``python -m engines.vision.export --config FILE --checkpoint FILE --out DIR``
"""

from __future__ import annotations

import argparse
import copy
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from engines.vision.config import load_recipe
from engines.vision.graphs import DecoderGraph, EncoderGraph, EnergyGraph, StepGraph
from engines.vision.nets import GlanceAndRefine, normalise_exposure
from engines.vision.train import load_weights

OPSET = 18
MAX_BATCH = 1024
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16}


def export_all(net: GlanceAndRefine, out: Path) -> None:
    """Write ``{encoder,step,energy,decoder}.{fp32,fp16}.onnx``; only the batch is dynamic."""
    out.mkdir(parents=True, exist_ok=True)
    for precision, dtype in PRECISIONS.items():
        for name, (graph, inputs, outputs) in _graphs(copy.deepcopy(net).eval().to(dtype)).items():
            _export(graph, inputs, outputs, out / f"{name}.{precision}.onnx")


def _graphs(net: GlanceAndRefine) -> dict[str, tuple[nn.Module, dict[str, Tensor], list[str]]]:
    """Give each graph an example of its inputs, by name, and the names of its outputs."""
    frame = torch.rand(2, 3, *net.config.size_px)
    with torch.no_grad():
        z, ctx = (part.float() for part in net.encode(normalise_exposure(frame).to(net.dtype)))
    step_size = torch.ones(2)
    return {
        "encoder": (EncoderGraph(net), {"frame": frame}, ["z", "ctx", "energy"]),
        "step": (StepGraph(net), {"z": z, "ctx": ctx, "step_size": step_size}, ["delta", "energy"]),
        "energy": (EnergyGraph(net), {"z": z, "ctx": ctx}, ["energy"]),
        "decoder": (DecoderGraph(net), {"z": z}, ["logits"]),
    }


def _export(graph: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path) -> None:
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
    onnx.save(_stripped(program.model_proto), path)


def _stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the stack traces that the exporter keeps in every node: they name the machine's folders."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    return model


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the recipe, a TOML file")
    parser.add_argument("--checkpoint", type=Path, required=True, help="what training wrote")
    parser.add_argument("--out", type=Path, required=True, help="where the ONNX files go")
    args = parser.parse_args()
    export_all(load_weights(load_recipe(args.config), args.checkpoint), args.out)


if __name__ == "__main__":
    main()
