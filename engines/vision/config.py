"""Everything that a recipe may vary, read from one TOML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engines.recipes import build, read_toml


@dataclass(frozen=True)
class DataConfig:
    """The data set and its classes.

    Attributes:
        classes, palette: Names and colours, in the order of the labels.
        height_px, width_px: The input of the net; frames and labels of another size are scaled to it.
        calibration_share, head_share: Of the training frames, kept out of the training of the nets: for halt
            and trust, and for the head alone.
        void: The label of pixels that do not count.
        drive_letters: How many letters of a frame's id name the drive that it was taken on.
        block_frames: So many consecutive frames of a drive are kept out, or drawn, together.
        val_drives: Drives of ``train`` that are kept for ``val``; without any, the folder ``val`` is.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    height_px: int
    width_px: int
    calibration_share: float
    head_share: float = 0.0
    void: int | None = None
    drive_letters: int = 0
    block_frames: int = 1
    val_drives: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetConfig:
    """The state and the step.

    Attributes:
        classes: How many.
        size_px: Height and width of the input.
        limit: Bounds the state on both sides.
        noise_sigma: Of the noise that the refiner is trained to undo.
        tiles_per_step, max_steps: How many tiles one step refines; after how many steps a run ends.
        tile_cells: Width of a tile, in cells.
        logit_px: Width of what one logit covers, in pixels.
        glance: ``plain``, or ``lite0`` for the first stages of EfficientNet-Lite0.
        close_look: How the refiner sees pixels: ``plain``, as they are, or through stages of ``lite0``.
        glance_scale: The resolution that the glance looks at, over that of the frame.
        features: Channels of what the glance finds in a cell.
        refiner_widths: Channels between the refiner's convolutions.
        reread_features: Whether the refiner's last layer reads the features of the glance again.
        order: What a step chooses its tiles by: their predicted ``gain``, or the ``entropy`` of their labels.
        head: What the energy is predicted from: all ``context``, or only the ``doubts`` about the labels.
        dropout: Of the channels that each of the two last layers reads, the share that training leaves out.
    """

    classes: int
    size_px: tuple[int, int]
    limit: float
    noise_sigma: float
    tiles_per_step: int
    max_steps: int
    tile_cells: int
    logit_px: int
    glance: str
    features: int
    refiner_widths: tuple[int, int]
    close_look: str = "plain"
    reread_features: bool = False
    order: Literal["gain", "entropy"] = "gain"
    head: Literal["context", "doubts"] = "context"
    glance_scale: float = 0.5
    dropout: float = 0.0


@dataclass(frozen=True)
class AugmentConfig:
    """How frames are varied: see ``engines.vision.augment``. ``crop_px`` is (height, width)."""

    crop_px: tuple[int, int]
    turns: bool
    zoom: tuple[float, float]
    hard_share: float
    tint: float = 0.0


@dataclass(frozen=True)
class TrainConfig:
    """How the weights are fitted.

    Attributes:
        seed, batch, iterations, head_iterations: Of the nets, and of the head alone.
        learning_rate, weight_decay, average_decay: Of AdamW and of the running average of the weights.
        class_weight: How much a pixel counts, by the order of the classes.
        tile_share: Of the tiles of a crop, drawn at random, that an iteration refines.
        glance_iterations: So many iterations, the first, fit the glance alone.
        trunk_rate: The learning rate of pretrained weights, over that of the others.
        distillation: How much the glance learns from what the refiner makes of it.
        overlap: How much the overlap with each class's pixels counts beside the cross-entropy.
        refit_iterations, refit_rate: Of the nets on all frames, once halt and trust are chosen; the rate is
            over ``learning_rate``.
    """

    seed: int
    batch: int
    iterations: int
    head_iterations: int
    learning_rate: float
    weight_decay: float
    average_decay: float
    class_weight: tuple[float, ...]
    tile_share: float
    glance_iterations: int = 0
    trunk_rate: float = 1.0
    distillation: float = 0.0
    overlap: float = 0.0
    refit_iterations: int = 0
    refit_rate: float = 0.3


@dataclass(frozen=True)
class HaltConfig:
    """The default halt: the range of the last ``K`` + 1 energies; ``max_loss`` is the mIoU it may cost."""

    K: int
    max_loss: float


@dataclass(frozen=True)
class CardConfig:
    """What the model card says beside the figures.

    Attributes:
        subject: What the frames show.
        pretrained: Where the first weights came from, or that there were none.
        limits: What the model is not, one sentence each.
        otsu: Whether Otsu's threshold can do the same task, and is measured beside it.
    """

    subject: str
    pretrained: str
    limits: tuple[str, ...]
    otsu: bool = False


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
    augment: AugmentConfig
    train: TrainConfig
    halt: HaltConfig
    card: CardConfig


def load_recipe(path: Path, seed: int | None = None) -> Recipe:
    """Read a recipe; what it leaves out is taken from the file that its ``base`` names, if any.

    Args:
        path: The TOML file.
        seed: Instead of the recipe's.

    Raises:
        TypeError: A key is missing or unknown; the message names it.
    """
    raw = read_toml(path)
    if seed is not None:
        raw["train"]["seed"] = seed
    raw["net"] |= {
        "classes": len(raw["data"]["classes"]),
        "size_px": [raw["data"]["height_px"], raw["data"]["width_px"]],
    }
    recipe: Recipe = build(Recipe, raw)
    return recipe
