"""Labelled frames of a folder, read one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sage_edge.errors import ConfigError, FrameError, InputError, ShapeError
from sage_edge.frames import decode_image

_IMAGE_SUFFIXES = (".webp", ".png", ".jpg", ".jpeg")
_LARGEST_PIXELS = 1 << 28


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """A frame and its labels: uint8 [H, W, 3] and integers [H, W]."""

    name: str
    frame: NDArray[np.uint8]
    labels: NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A split in the layout ``<split>/NAME.*`` beside ``<split>annot/NAME.png``."""

    images: tuple[Path, ...]
    labels: Path

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[LabelledFrame]:
        for path in self.images:
            yield _read(path, self.labels / f"{path.stem}.png")


def _read(path: Path, labels_path: Path) -> LabelledFrame:
    """Raises InputError naming the file that cannot be used."""
    try:
        frame = decode_image(path.read_bytes(), _LARGEST_PIXELS)
    except InputError as exc:
        raise type(exc)(f"{path}: {exc}") from exc
    try:
        with Image.open(labels_path) as image:
            labels = np.asarray(image)
    except (UnidentifiedImageError, SyntaxError, ValueError) as exc:
        raise FrameError(f"{labels_path}: the image is broken: {exc}") from exc
    if labels.shape != frame.shape[:2] or not np.issubdtype(labels.dtype, np.integer):
        raise ShapeError(
            f"{labels_path}: expected integer labels {list(frame.shape[:2])} like its frame, "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    return LabelledFrame(path.stem, frame, labels)


def find_labelled(data: Path, split: str) -> Labelled:
    """The frames of a split.

    Raises:
        ConfigError: There are none, or a frame has no labels.
    """
    images = tuple(sorted(p for p in (data / split).glob("*") if p.suffix.lower() in _IMAGE_SUFFIXES))
    if not images:
        raise ConfigError(f"--data: expected images in {data / split}, found none")
    labels = data / f"{split}annot"
    missing = [path.stem for path in images if not (labels / f"{path.stem}.png").is_file()]
    if missing:
        raise ConfigError(f"--data: {len(missing)} frames have no PNG in {labels}, the first is {missing[0]}")
    return Labelled(images, labels)
