"""The trunk is EfficientNet-Lite0: its shapes, its padding and its published size."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'sage-edge[training]'")

from safetensors.torch import save_file  # noqa: E402

from engines.vision import lite0  # noqa: E402
from engines.vision.lite0 import CLOSE_TAPS, GLANCE_TAPS, CloseLook, LiteGlance, Trunk  # noqa: E402

pytestmark = pytest.mark.training


def test_the_five_stages_have_the_parameters_that_were_counted():
    weights = [p for name, p in Trunk(GLANCE_TAPS).named_parameters() if "bn" not in name]
    assert sum(p.numel() for p in weights) == 684_608  # counted from the published table of stages


def test_every_tap_halves_the_one_before_rounding_up():
    sizes = [tuple(tap.shape[2:]) for tap in Trunk(GLANCE_TAPS).eval()(torch.rand(1, 3, 90, 120))]
    assert sizes == [(45, 60), (23, 30), (12, 15), (6, 8)]


@pytest.mark.parametrize("size", [8, 9, 15])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_is_even_but_for_an_odd_pixel_at_the_far_side(size, kernel, stride):
    conv = lite0._SameConv(1, 1, kernel, stride, bias=False)
    torch.nn.init.ones_(conv.weight)
    out = conv(torch.ones(1, 1, size, size))
    assert out.shape[-1] == -(-size // stride)
    first, last = out[0, 0, 0, 0].sqrt().item(), out[0, 0, -1, -1].sqrt().item()
    missing = max((out.shape[-1] - 1) * stride + kernel - size, 0)
    assert (round(kernel - first), round(kernel - last)) == (missing // 2, missing - missing // 2)


def test_weights_are_taken_from_a_file_and_the_stem_scaled_to_our_exposure(tmp_path):
    torch.manual_seed(0)
    source, target = Trunk(GLANCE_TAPS), Trunk(GLANCE_TAPS)
    state = {name: value.clone() for name, value in source.state_dict().items() if "num_batches" not in name}
    save_file(state | {"_conv_head.weight": torch.ones(1)}, tmp_path / "trunk.safetensors")
    target.load(tmp_path / "trunk.safetensors")
    pixels = torch.rand(1, 3, 32, 32)
    for ours, theirs in zip(
        target.eval()(pixels), source.eval()(lite0.INPUT_DEVIATION * pixels), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_file_that_lacks_a_tensor_is_refused(tmp_path):
    save_file({"_bn0.weight": torch.ones(32)}, tmp_path / "trunk.safetensors")
    with pytest.raises(KeyError, match="_conv_stem"):
        Trunk(GLANCE_TAPS).load(tmp_path / "trunk.safetensors")


def test_the_glance_gives_features_for_every_cell():
    assert LiteGlance(16).eval()(torch.rand(2, 3, 96, 128)).shape == (2, 16, 24, 32)


def test_the_close_look_is_the_same_trunk_cut_short():
    whole, short = Trunk(GLANCE_TAPS).eval(), Trunk(CLOSE_TAPS).eval()
    short.load_state_dict({name: whole.state_dict()[name] for name in short.state_dict()})
    pixels = torch.rand(1, 3, 56, 56)
    for ours, theirs in zip(short(pixels), whole(pixels), strict=False):
        torch.testing.assert_close(ours, theirs)
    assert len(short(pixels)) == 3


def test_the_close_look_sees_every_cell_of_a_crop():
    assert CloseLook().eval()(torch.rand(2, 3, 56, 56)).shape == (2, CloseLook.channels, 14, 14)
