"""Everything that a recipe may vary, read from one TOML file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class DataConfig:
    """The data set and its classes. ``calibration_share`` of the training frames is kept out of training."""

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    height_px: int
    width_px: int
    calibration_share: float


@dataclass(frozen=True)
class NetConfig:
    """The state and the step. ``limit`` bounds the state on both sides; ``size_px`` is (height, width)."""

    classes: int
    size_px: tuple[int, int]
    limit: float
    noise_sigma: float
    tiles_per_step: int
    max_steps: int


@dataclass(frozen=True)
class TrainConfig:
    """How the weights are fitted. ``class_weight`` follows the order of the classes."""

    seed: int
    batch: int
    iterations: int
    head_iterations: int
    learning_rate: float
    weight_decay: float
    average_decay: float
    class_weight: tuple[float, ...]


@dataclass(frozen=True)
class HaltConfig:
    """The default halt: the range of the last ``K`` + 1 energies; ``max_loss`` is the mIoU it may cost."""

    K: int
    max_loss: float


@dataclass(frozen=True)
class Recipe:
    """One model: what it is called, what it learns from and how. ``note`` goes into the model card."""

    name: str
    version: str
    licence: str
    data_licence: str
    note: str
    data: DataConfig
    net: NetConfig
    train: TrainConfig
    halt: HaltConfig


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        TypeError: a key is missing or unknown; the message names it.
    """
    raw: dict[str, Any] = tomllib.loads(path.read_text())
    data = raw.pop("data")
    data["classes"] = tuple(data["classes"])
    data["palette"] = tuple(tuple(colour) for colour in data["palette"])
    train = raw.pop("train")
    train["class_weight"] = tuple(train["class_weight"])
    return Recipe(
        data=DataConfig(**data),
        net=NetConfig(
            classes=len(data["classes"]), size_px=(data["height_px"], data["width_px"]), **raw.pop("net")
        ),
        train=TrainConfig(**train),
        halt=HaltConfig(**raw.pop("halt")),
        **raw,
    )
