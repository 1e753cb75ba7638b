"""A vision model folder: its manifest, checked, and its engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge import native
from sage_edge.config import shared_file
from sage_edge.errors import ConfigError
from sage_edge.irp import Engine, Recipe, TrustTable
from sage_edge.irp.engine import Float32
from sage_edge.plugins.manifest import open_manifest

GRAPHS = ("encoder", "step", "energy", "decoder")
FORMAT = 1
#: Where our models are. Those in ``optional`` may not be used by all, so that no wheel and no image has them.
HOMES = ("engines/vision/models", "engines/vision/optional")


@dataclass(frozen=True, slots=True)
class StreamRule:
    """Which tiles of a stream's last answer are still good for its next frame.

    Those whose first guess changed by at most ``tolerance``, the mean absolute difference of its logits; a
    tile is ``tile_cells`` x ``tile_cells`` cells.
    """

    tile_cells: int
    tolerance: float

    def unchanged(self, first: Float32, earlier: Float32) -> NDArray[np.bool_]:
        """Find the cells of such tiles: bool [h, w].

        Args:
            first: A first guess, float32 [C, h, w], the last channel a mark.
            earlier: The one that the last answer was refined from.
        """
        n = self.tile_cells
        cells = np.abs(first[:-1] - earlier[:-1]).mean(axis=0)
        height, width = cells.shape
        tiles = cells.reshape(height // n, n, width // n, n).mean(axis=(1, 3))
        return np.asarray((tiles <= self.tolerance).repeat(n, axis=0).repeat(n, axis=1))


@dataclass(frozen=True, slots=True)
class VisionModel:
    """A trained refiner of images: what its manifest declares, and its four engines.

    ``void`` is the label of pixels that do not count; the first ``drive_letters`` of a labelled frame's name
    say which drive it is of. Only an evaluation asks for either.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    height: int
    width: int
    state_shape: tuple[int, ...]
    context_shapes: dict[str, tuple[int, ...]]
    lo: float
    hi: float
    step_size: float
    noise_sigma: float
    energy_units: str
    halting: native.HaltPolicy
    trust: TrustTable
    streams: StreamRule | None
    macs: dict[str, int]
    void: int | None
    drive_letters: int
    encoder: Engine
    step: Engine
    energy: Engine
    decoder: Engine


def find_model(name: str) -> Path:
    """The folder of a model: one of ours, by name, or any folder by its path.

    Raises:
        ConfigError: There is no such folder.
    """
    ours = {
        path.parent.name: path.parent for home in HOMES for path in shared_file(home).glob("*/manifest.json")
    }
    folder = ours.get(name, Path(name))
    if not (folder / "manifest.json").is_file():
        raise ConfigError(
            f"model: expected one of {sorted(ours)} or a folder with a manifest.json, got {name!r}"
        )
    return folder


def load_model(folder: Path, engines: Mapping[str, Engine]) -> VisionModel:
    """Read a model folder's manifest, and check its engines against it.

    Args:
        folder: Holds ``manifest.json``.
        engines: By graph, one for each of GRAPHS.

    Raises:
        EngineError: The manifest is broken, or a graph's inputs and outputs are not those of the contract.
    """
    with open_manifest(folder, FORMAT) as manifest:
        return _assemble(manifest, engines)


def read_recipes(folder: Path, *, precision: str) -> dict[str, Recipe]:
    """How a model's engines are made, by graph: ``<graph>.<precision>.onnx`` for each of GRAPHS.

    Raises:
        EngineError: The manifest is broken.
    """
    with open_manifest(folder, FORMAT) as manifest:
        files = {graph: f"{graph}.{precision}.onnx" for graph in GRAPHS}
        return {
            graph: Recipe(
                sha256=manifest["files"][file],
                name=f"{manifest['name']}.{graph}.{precision}",
                path=folder / file,
                precision=precision,
            )
            for graph, file in files.items()
        }


def _assemble(manifest: dict[str, Any], engines: Mapping[str, Engine]) -> VisionModel:
    context: Sequence[str] = manifest["context"]
    engines["encoder"].require(["frame"], ["z", "energy", *context])
    engines["step"].require(["z", "step_size", *context], ["delta", "energy"])
    engines["energy"].require(["z", *context], ["energy"])
    engines["decoder"].require(["z"], ["logits"])
    state, halting, trust = manifest["state"], manifest["halting"], manifest["trust"]
    return VisionModel(
        name=manifest["name"],
        version=manifest["version"],
        classes=tuple(manifest["classes"]),
        palette=tuple((r, g, b) for r, g, b in manifest["palette"]),
        height=int(manifest["input"]["height"]),
        width=int(manifest["input"]["width"]),
        state_shape=tuple(int(n) for n in state["shape"]),
        context_shapes={name: tuple(int(n) for n in engines["step"].inputs[name][1:]) for name in context},
        lo=float(state["lo"]),
        hi=float(state["hi"]),
        step_size=float(state["step_size"]),
        noise_sigma=float(state["noise_sigma"]),
        energy_units=manifest["energy_units"],
        halting=native.HaltPolicy(
            eps=float(halting["eps"]),
            K=int(halting["K"]),
            max_steps=int(halting["max_steps"]),
            E_scale=float(manifest["E_scale"]),
        ),
        trust=TrustTable(tuple(trust["E_norm"]), tuple(trust["quality"])),
        streams=StreamRule(**manifest["streams"]) if "streams" in manifest else None,
        macs={graph: int(manifest["macs"][graph]) for graph in GRAPHS},
        void=manifest.get("void"),
        drive_letters=manifest.get("drive_letters", 0),
        **engines,
    )
