"""Labelled frames from a folder of ``train/ID.webp`` with ``trainannot/ID.png``, and the same for ``val``."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from engines.vision.config import DataConfig

#: The label of pixels that do not count, whatever the data set calls it.
VOID = 255


@dataclass(frozen=True)
class LabelledFrames:
    """N frames: ``frames`` uint8 [N, H, W, 3] RGB, ``labels`` uint8 [N, H, W], an ``id`` and a block each."""

    ids: tuple[str, ...]
    blocks: tuple[str, ...]
    frames: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)


def blocks_of(ids: Iterable[str], drive_letters: int, block_frames: int) -> dict[str, str]:
    """Name the block of every frame: so many consecutive frames of a drive, or the frame itself.

    Neighbours in a video are nearly the same frame, so they are kept out, and drawn, together.
    """
    drives = defaultdict(list)
    for frame_id in sorted(ids):
        drives[frame_id[:drive_letters]].append(frame_id)
    if not drive_letters:
        return {frame_id: frame_id for frame_id in drives[""]}
    return {
        frame_id: f"{drive}-{number // block_frames}"
        for drive, members in drives.items()
        for number, frame_id in enumerate(members)
    }


def part_of(block: str, config: DataConfig) -> str:
    """Whether a block of ``train`` is for ``calibration``, ``head`` or ``train``: by its hash, for good."""
    share = int.from_bytes(hashlib.sha256(block.encode()).digest()[:8], "big") / 2**64
    if share < config.calibration_share:
        return "calibration"
    return "head" if share < config.calibration_share + config.head_share else "train"


def load_split(root: Path, split: str, config: DataConfig) -> LabelledFrames:
    """Load ``train``, ``head`` or ``calibration``, which have no frame in common, ``all`` three, or ``val``.

    Raises:
        FileNotFoundError: the folder holds no frames, or a frame has no labels.
        ValueError: a frame and its labels differ in size, or a label is no class.
    """
    folder = "val" if split == "val" and not config.val_drives else "train"
    paths = sorted((root / folder).glob("*.webp"))
    blocks = blocks_of((path.stem for path in paths), config.drive_letters, config.block_frames)
    wanted = ("train", "head", "calibration") if split == "all" else (split,)
    paths = [path for path in paths if _split_of(path.stem, blocks, folder, config) in wanted]
    if not paths:
        raise FileNotFoundError(f"no frames of split {split!r}: expected {root / folder}/ID.webp")
    pairs = [
        _load_pair(p, root / f"{folder}annot", config) for p in tqdm(paths, f"load {split}", leave=False)
    ]
    frames, labels = zip(*pairs, strict=True)
    ids = tuple(path.stem for path in paths)
    return LabelledFrames(ids, tuple(blocks[i] for i in ids), np.stack(frames), np.stack(labels))


def _split_of(frame_id: str, blocks: dict[str, str], folder: str, config: DataConfig) -> str:
    if folder == "val" or frame_id[: config.drive_letters] in config.val_drives:
        return "val"
    return part_of(blocks[frame_id], config)


def _load_pair(
    path: Path, labels_root: Path, config: DataConfig
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    size = (config.width_px, config.height_px)
    with Image.open(path) as image, Image.open(labels_root / f"{path.stem}.png") as marked:
        if image.size != marked.size:
            raise ValueError(f"{path.name}: expected labels of {image.size}, got {marked.size}")
        frame = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
        labels = np.asarray(marked.resize(size, Image.Resampling.NEAREST))
    if config.void is not None:
        labels = np.where(labels == config.void, VOID, labels).astype(np.uint8)
    counted = labels[labels != VOID]
    if counted.size and counted.max() >= len(config.classes):
        raise ValueError(f"{path.name}: expected labels below {len(config.classes)}, got {counted.max()}")
    return frame, labels
