"""Frames are varied together with their labels."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'sage-edge[training]'")

from engines.vision.augment import spoil, tint, vary  # noqa: E402
from engines.vision.config import AugmentConfig  # noqa: E402
from engines.vision.data import VOID  # noqa: E402

pytestmark = pytest.mark.training


def config(crop=(16, 24), turns=False, zoom=(1.0, 1.0), hard=0.0):
    return AugmentConfig(crop, turns, zoom, hard)


def squares(size=(32, 48)):
    """Frames whose red says the label: 8-pixel squares of one class each."""
    rows, columns = (torch.arange(n) // 8 for n in size)
    labels = ((rows[:, None] + 2 * columns) % 5).to(torch.uint8).repeat(6, 1, 1)
    return (labels[:, None] * 50).repeat(1, 3, 1, 1), labels


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("zoom", [(1.0, 1.0), (0.8, 2.0)])
def test_labels_stay_on_what_they_label(turns, zoom):
    torch.manual_seed(0)
    frames, labels = squares((48, 48))
    varied, of_labels = vary(frames, labels, config((32, 32), turns, zoom))
    told = (varied[:, 0] * 255 / 50).round().long()
    assert (of_labels != VOID).all()
    assert (told == of_labels).float().mean() > 0.85  # pixels between two squares are neither


def test_an_unchanged_frame_is_only_cropped_or_mirrored():
    torch.manual_seed(1)
    frames, labels = squares()
    varied, of_labels = vary(frames, labels, config((32, 48)))
    for one, whole, marks, truth in zip(varied, frames, of_labels, labels, strict=True):
        mirrored = not torch.equal(marks, truth.long())
        expected = whole.flip(2) if mirrored else whole
        torch.testing.assert_close(one, expected.float() / 255, atol=1e-4, rtol=0)  # of interpolation
    assert len({tuple(marks.flatten().tolist()) for marks in of_labels}) == 2


def test_beyond_the_frame_nothing_counts():
    frames, labels = squares()
    _, of_labels = vary(frames, labels, config((64, 48)))
    assert (of_labels == VOID).float().mean() == pytest.approx(0.5)


def test_the_asked_share_of_frames_is_spoilt():
    torch.manual_seed(2)
    frames = torch.rand(400, 3, 8, 8)
    changed = (spoil(frames, 0.3) != frames).flatten(1).any(dim=1).float().mean().item()
    assert changed == pytest.approx(0.3, abs=0.1)  # four deviations of 400 draws
    assert torch.equal(spoil(frames, 0.0), frames)


def test_blur_and_light_keep_a_flat_frame_flat_on_average():
    torch.manual_seed(3)
    grey = torch.full((64, 3, 32, 32), 0.3)
    spoilt = spoil(grey, 1.0).mean(dim=(1, 2, 3))
    assert 0.3 * 0.29 < spoilt.min() < spoilt.max() < 0.3 * 1.42


def test_each_colour_of_a_frame_is_tinted_by_itself_within_its_bounds():
    torch.manual_seed(4)
    frames = torch.rand(200, 3, 4, 4) + 0.1
    gains = tint(frames, 0.25) / frames
    of_colours = gains.flatten(2)
    assert (of_colours.amax(2) - of_colours.amin(2)).max() < 1e-5
    assert gains.min() >= 0.8 - 1e-5
    assert gains.max() <= 1.25 + 1e-5
    assert gains.max() - gains.min() > 0.35
    assert (of_colours[:, 0, 0] - of_colours[:, 1, 0]).abs().mean() > 0.05
    torch.testing.assert_close(tint(frames, 0.0), frames)
