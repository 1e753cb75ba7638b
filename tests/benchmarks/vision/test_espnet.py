"""The rival is the one that was published: its weights fit, and it scores what it is known to score."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'sage-edge[training]'")

from benchmarks.vision.espnet import espnet_confusions  # noqa: E402
from benchmarks.vision.espnet_net import ESPNet, load_espnet  # noqa: E402
from sage_edge.evaluation import Labelled, find_labelled  # noqa: E402
from sage_edge.quality import mean_iou  # noqa: E402

pytestmark = pytest.mark.training


def test_it_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in ESPNet().parameters()) == pytest.approx(0.3545e6, rel=1e-3)


def test_every_pixel_gets_logits():
    with torch.no_grad():
        assert ESPNet().eval()(torch.zeros(1, 3, 40, 64)).shape == (1, 12, 40, 64)


def test_the_published_weights_score_about_what_they_are_known_to(data_folder):
    net = load_espnet(data_folder / "weights" / "espnet_p2_q8_camvid.safetensors")
    val = find_labelled(data_folder / "camvid", "val")
    few = Labelled(val.images[::8], val.labels)
    score = mean_iou(espnet_confusions(net, few).sum(axis=0))
    assert score == pytest.approx(0.6996, abs=0.03)  # all 101 frames; every eighth here
