"""What a recipe may vary of the nets and of the draw of their weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'sage-edge[training]'")

from benchmarks.vision.twin import glance_macs  # noqa: E402
from engines.vision.config import load_recipe  # noqa: E402
from engines.vision.nets import GlanceAndRefine  # noqa: E402
from engines.vision.train import Trainer  # noqa: E402

pytestmark = pytest.mark.training

QUICK = Path(__file__).parents[3] / "engines" / "vision" / "configs" / "camvid-quick.toml"


@pytest.fixture
def recipe():
    return load_recipe(QUICK)


def test_a_closer_look_gives_every_cell_its_features_for_more_compute(recipe):
    closer = GlanceAndRefine(replace(recipe.net, glance_scale=0.7)).eval()
    usual = GlanceAndRefine(recipe.net).eval()
    closer.load_state_dict(usual.state_dict())
    pixels = torch.randn(2, 3, *recipe.net.size_px)
    with torch.no_grad():
        (near, features), (far, _) = (net.guess(pixels) for net in (closer, usual))
    assert near.shape == far.shape
    assert features.shape[-2:] == near.shape[-2:]
    assert not torch.equal(near, far)
    assert glance_macs(closer) == pytest.approx(1.96 * glance_macs(usual), rel=0.1)


def test_channels_are_left_out_in_training_alone(recipe):
    net = GlanceAndRefine(replace(recipe.net, dropout=0.5))
    net.first_guess.weight.data.normal_()
    pixels = torch.randn(1, 3, *recipe.net.size_px)
    with torch.no_grad():
        drawn = [net.train().guess(pixels)[0] for _ in range(2)]
        kept = [net.eval().guess(pixels)[0] for _ in range(2)]
    assert not torch.equal(*drawn)
    assert torch.equal(*kept)


def test_a_seed_draws_the_same_weights_again_and_another_draws_others():
    first, again, other = (
        Trainer(load_recipe(QUICK, seed), iterations=1).net.first_guess.weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
