"""Labelled frames from a folder of ``train/ID.webp`` with ``trainannot/ID.png``, and the same for ``val``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from engines.vision.config import DataConfig


@dataclass(frozen=True)
class LabelledFrames:
    """N frames: ``frames`` uint8 [N, H, W, 3] RGB, ``labels`` uint8 [N, H, W], one ``id`` each."""

    ids: tuple[str, ...]
    frames: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)


def is_calibration(frame_id: str, share: float) -> bool:
    """Whether a training frame is kept for calibration: decided by a hash of its id, for good."""
    first_bytes = hashlib.sha256(frame_id.encode()).digest()[:8]
    return int.from_bytes(first_bytes, "big") < share * 2**64


def load_split(root: Path, split: str, config: DataConfig) -> LabelledFrames:
    """Load ``train`` (without its calibration block), ``calibration`` or ``val``.

    Raises:
        FileNotFoundError: the folder holds no frames, or a frame has no labels.
        ValueError: a frame or its labels have another size than the recipe says, or a label is no class.
    """
    folder = "val" if split == "val" else "train"
    paths = sorted((root / folder).glob("*.webp"))
    if split != "val":
        wanted = split == "calibration"
        paths = [p for p in paths if is_calibration(p.stem, config.calibration_share) == wanted]
    if not paths:
        raise FileNotFoundError(f"no frames of split {split!r}: expected {root / folder}/ID.webp")
    pairs = [
        _load_pair(p, root / f"{folder}annot", config) for p in tqdm(paths, f"load {split}", leave=False)
    ]
    frames, labels = zip(*pairs, strict=True)
    return LabelledFrames(tuple(p.stem for p in paths), np.stack(frames), np.stack(labels))


def _load_pair(
    path: Path, labels_root: Path, config: DataConfig
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    with Image.open(path) as image:
        frame = np.asarray(image.convert("RGB"))
    with Image.open(labels_root / f"{path.stem}.png") as image:
        labels = np.asarray(image)
    size = (config.height_px, config.width_px)
    if frame.shape[:2] != size or labels.shape != size:
        raise ValueError(f"{path.name}: expected {size}, got frame {frame.shape}, labels {labels.shape}")
    if labels.max() >= len(config.classes):
        raise ValueError(f"{path.name}: expected labels below {len(config.classes)}, got {labels.max()}")
    return frame, labels
