"""Which frames are for what, and what is read of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engines.vision.config import load_recipe
from engines.vision.data import VOID, blocks_of, load_split, part_of

pytestmark = pytest.mark.training

CONFIGS = Path(__file__).parents[3] / "engines" / "vision" / "configs"
ROAD = replace(load_recipe(CONFIGS / "camvid-quick.toml").data, height_px=6, width_px=8)


@pytest.fixture
def road(tmp_path):
    """Two drives of 25 frames, 12 x 16 pixels, with a void row each."""
    rng = np.random.default_rng(0)
    for folder in ("train", "trainannot", "val", "valannot"):
        (tmp_path / folder).mkdir()
    for name in [f"{drive}_{number:03}" for drive in ("0001TP", "0006R0") for number in range(25)]:
        folder = "val" if name.endswith("24") else "train"
        labels = rng.integers(0, 11, (12, 16)).astype(np.uint8)
        labels[:4] = 11
        Image.fromarray(rng.integers(0, 255, (12, 16, 3)).astype(np.uint8)).save(
            tmp_path / folder / f"{name}.webp"
        )
        Image.fromarray(labels).save(tmp_path / f"{folder}annot" / f"{name}.png")
    return tmp_path


@given(st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_keeps_every_calibration_block(block, a, b):
    low, high = (replace(ROAD, calibration_share=share) for share in sorted((a, b)))
    assert part_of(block, low) != "calibration" or part_of(block, high) == "calibration"


def test_the_shares_are_about_what_was_asked():
    parts = [
        part_of(f"frame-{n}", replace(ROAD, calibration_share=0.13, head_share=0.2)) for n in range(4000)
    ]
    assert parts.count("calibration") / 4000 == pytest.approx(0.13, abs=0.02)  # four deviations
    assert parts.count("head") / 4000 == pytest.approx(0.2, abs=0.03)


def test_frames_of_a_block_stay_together_and_drives_apart():
    blocks = blocks_of(
        [f"{drive}{n:03}" for drive in "ab" for n in range(7)], drive_letters=1, block_frames=3
    )
    members = [sorted(i for i in blocks if blocks[i] == block) for block in dict.fromkeys(blocks.values())]
    assert [len(member) for member in members] == [3, 3, 1, 3, 3, 1]
    assert all(len({i[0] for i in member}) == 1 for member in members)


def test_the_parts_of_train_share_no_block_and_leave_none_out(road):
    parts = {
        part: load_split(road, part, replace(ROAD, calibration_share=0.4, head_share=0.3))
        for part in ("train", "head", "calibration")
    }
    blocks = [set(part.blocks) for part in parts.values()]
    assert len(set.union(*blocks)) == sum(len(of_part) for of_part in blocks)
    assert sum(len(part) for part in parts.values()) == 48
    together = {frame_id for part in parts.values() for frame_id in part.ids}
    assert set(load_split(road, "all", ROAD).ids) == together


def test_frames_and_labels_are_scaled_and_void_is_void(road):
    val = load_split(road, "val", ROAD)
    assert val.ids == ("0001TP_024", "0006R0_024")
    assert val.frames.shape == (2, 6, 8, 3)
    assert (val.labels[:, :2] == VOID).all()
    assert val.labels[:, 2:].max() < 11
    with Image.open(road / "valannot" / "0001TP_024.png") as image:
        assert set(val.labels[0, 2:].ravel()) <= set(np.asarray(image).ravel())


def test_a_drive_kept_for_val_is_in_no_other_part(road):
    config = replace(ROAD, val_drives=("0006R0",), calibration_share=0.3)
    assert {i[:6] for i in load_split(road, "val", config).ids} == {"0006R0"}
    for part in ("train", "calibration"):
        assert {i[:6] for i in load_split(road, part, config).ids} == {"0001TP"}


def test_a_label_that_is_no_class_is_named(road):
    Image.fromarray(np.full((12, 16), 12, np.uint8)).save(road / "valannot" / "0006R0_024.png")
    with pytest.raises(ValueError, match=r"0006R0_024.webp: expected labels below 11, got 12"):
        load_split(road, "val", ROAD)


def test_every_recipe_that_ships_can_be_read():
    recipes = {path.stem: load_recipe(path) for path in CONFIGS.glob("*.toml")}
    for recipe in recipes.values():
        cells = [px // 4 for px in recipe.net.size_px]
        tiles = np.prod([n // recipe.net.tile_cells for n in cells])
        assert all(n % recipe.net.tile_cells == 0 for n in cells), recipe.name
        assert tiles == recipe.net.tiles_per_step * recipe.net.max_steps, recipe.name
        assert len(recipe.train.class_weight) == len(recipe.data.classes) == len(recipe.data.palette)


def test_an_unknown_key_is_named(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(f'base = "{CONFIGS / "nuclei.toml"}"\n[net]\nwidth = 3\n')
    with pytest.raises(TypeError, match="width"):
        load_recipe(path)
