"""Synthetic fluorescence frames, made by our own code: bright ellipses on a dark ground."""

from __future__ import annotations

import numpy as np


def nuclei_frames(count, seed, size_px=256):
    """Return uint8 frames [N, H, W, 3] and labels [N, H, W]: background, nucleus, one-pixel boundary."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size_px, :size_px]
    frames, labels = [], []
    for _ in range(count):
        light, classes = np.full((size_px, size_px), 12.0), np.zeros((size_px, size_px), np.uint8)
        for _ in range(size_px * size_px // 3000):
            y, x = rng.uniform(0, size_px, 2)
            tall, wide = rng.uniform(6, 16, 2)
            inside = ((rows - y) / tall) ** 2 + ((columns - x) / wide) ** 2 <= 1
            light[inside], classes[inside] = rng.uniform(70, 180), 1
        classes[inside_edge(classes == 1)] = 2
        frames.append(np.clip(light + rng.normal(0, 4, light.shape), 0, 255).astype(np.uint8))
        labels.append(classes)
    return np.repeat(np.stack(frames)[..., None], 3, axis=3), np.stack(labels)


def inside_edge(mask):
    """Return the pixels of a mask that have a 4-neighbour outside it; the frame's border is no edge."""
    padded = np.pad(mask, 1, mode="edge")
    neighbours = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~neighbours
