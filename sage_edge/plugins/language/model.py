"""A reader's folder: its manifest, its tokenizer and its two networks, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from sage_edge import native
from sage_edge.config import shared_file
from sage_edge.errors import ConfigError, EngineError
from sage_edge.irp import Engine, Recipe, TrustTable
from sage_edge.plugins.language.glance import stems_of
from sage_edge.plugins.language.windows import Int32, WindowSize
from sage_edge.plugins.manifest import open_manifest

GRAPHS = ("step", "energy")
FORMAT = 1
#: Where our readers are.
HOME = "engines/language/models"
#: What a graph of each name reads beside ``step_size``.
CONTEXT = ("ids", "prior", "place", "facts")
#: Numbers in ``facts``.
FACTS = 6


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A trained reader: what its manifest declares, its tokenizer and its networks.

    Attributes:
        name, version: Of the reader.
        window: How a text is cut.
        question_pieces: Of a question, those that are read.
        rows: Windows that a state has room for.
        length: Pieces of the reader's input.
        width: Of a span's meaning.
        cls, sep, unknown: Numbers of the marks before a question and behind it, and of what is no known
        piece.
        beta: How much more likely a window is by a point of BM25.
        nowhere: The chance that a text does not answer, before anything is read.
        slope, offset: Of the logarithm of the evidence over the score.
        sharpness: How much a span's share of the reader's softmax counts.
        halting: When a run ends by itself.
        trust: What an energy promises.
        macs: Multiply-accumulates of one read.
        tokenizer: Cuts texts.
        stems: int32 [vocabulary], which pieces the glance takes for one term.
        step, energy: The networks.
    """

    name: str
    version: str
    window: WindowSize
    question_pieces: int
    rows: int
    length: int
    width: int
    cls: int
    sep: int
    unknown: int
    beta: float
    nowhere: float
    slope: float
    offset: float
    sharpness: float
    halting: native.HaltPolicy
    trust: TrustTable
    macs: int
    tokenizer: Tokenizer
    stems: Int32
    step: Engine
    energy: Engine


def find_model(name: str) -> Path:
    """The folder of a reader: one of ours, by name, or any folder by its path.

    Raises:
        ConfigError: There is no such folder.
    """
    ours = {path.parent.name: path.parent for path in shared_file(HOME).glob("*/manifest.json")}
    folder = ours.get(name, Path(name))
    if not (folder / "manifest.json").is_file():
        raise ConfigError(
            f"model: expected one of {sorted(ours)} or a folder with a manifest.json, got {name!r}"
        )
    return folder


def read_recipes(folder: Path) -> dict[str, Recipe]:
    """How a reader's networks are made, by graph; they are float32 at every precision.

    Raises:
        EngineError: The manifest is broken.
    """
    with open_manifest(folder, FORMAT) as manifest:
        return {
            graph: Recipe(
                name=f"{manifest['name']}.{graph}.fp32",
                path=folder / f"{graph}.onnx",
                sha256=manifest["files"][f"{graph}.onnx"],
                precision="fp32",
            )
            for graph in GRAPHS
        }


def load_model(folder: Path, engines: Mapping[str, Engine]) -> LanguageModel:
    """Read a folder's manifest and tokenizer, and check its networks against them.

    Args:
        folder: Holds ``manifest.json`` and ``tokenizer.json``.
        engines: By graph, one for each of GRAPHS.

    Raises:
        EngineError: The manifest or the tokenizer is broken, or a graph's inputs and outputs are others.
    """
    with open_manifest(folder, FORMAT) as manifest:
        tokenizer = _tokenizer(folder / "tokenizer.json", manifest["files"]["tokenizer.json"])
        return _assemble(manifest, tokenizer, engines)


def _tokenizer(path: Path, sha256: str) -> Tokenizer:
    content = path.read_bytes()
    came = hashlib.sha256(content).hexdigest()
    if came != sha256:
        raise EngineError(f"{path}: expected sha256 {sha256[:12]}…, got {came[:12]}…; restore the file")
    return Tokenizer.from_str(content.decode())


def _assemble(manifest: dict[str, Any], tokenizer: Tokenizer, engines: Mapping[str, Engine]) -> LanguageModel:
    engines["step"].require(["z", "step_size", *CONTEXT], ["delta", "energy"])
    engines["energy"].require(["z", "prior", "place", "facts"], ["energy"])
    cut, glance, evidence = manifest["windows"], manifest["glance"], manifest["evidence"]
    halting, trust, marks = manifest["halting"], manifest["trust"], manifest["marks"]
    return LanguageModel(
        name=manifest["name"],
        version=manifest["version"],
        window=WindowSize(int(cut["pieces"]), int(cut["stride"])),
        question_pieces=int(cut["question_pieces"]),
        rows=int(cut["rows"]),
        length=int(engines["step"].inputs["ids"][2]),
        width=int(manifest["width"]),
        cls=int(marks["cls"]),
        sep=int(marks["sep"]),
        unknown=int(marks["unknown"]),
        beta=float(glance["beta"]),
        nowhere=float(glance["nowhere"]),
        slope=float(evidence["slope"]),
        offset=float(evidence["offset"]),
        sharpness=float(evidence["sharpness"]),
        halting=native.HaltPolicy(
            target_E_norm=float(halting["target_E_norm"]),
            eps=float(halting["eps"]),
            K=int(halting["K"]),
            max_steps=int(halting["max_steps"]),
        ),
        trust=TrustTable(tuple(trust["E_norm"]), tuple(trust["quality"])),
        macs=int(manifest["macs"]["step"]),
        tokenizer=tokenizer,
        stems=stems_of(tokenizer.get_vocab()),
        step=engines["step"],
        energy=engines["energy"],
    )
