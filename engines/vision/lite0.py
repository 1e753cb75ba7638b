"""Looks through the first stages of EfficientNet-Lite0, so that ImageNet weights can be their start.

M. Tan and Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019; the Lite
variants have no squeeze-and-excitation and clip at 6. Tensors are named as in ``efficientnet_lite_pytorch``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

#: Blocks of a stage as (repeats, kernel, stride, expansion, output channels).
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
STEM_CHANNELS = 32
#: The last block of a stage that is read, and its channels: at 1/2, 1/4, 1/8 and 1/16 of what is looked at.
GLANCE_TAPS = {0: 16, 2: 24, 4: 40, 10: 112}
CLOSE_TAPS = {0: 16, 2: 24, 4: 40}
#: The trunk learned from (x - 0.498) / 0.502; ImageNet then has about this deviation, and our frames have 1.
INPUT_DEVIATION = 0.55


class _SameConv(nn.Conv2d):
    """A convolution padded so that a stride of s leaves ceil(n / s) of n, the odd pixel at the far side."""

    def forward(self, x: Tensor) -> Tensor:
        """Pad, then convolve."""
        rows, columns = (self._missing(size) for size in x.shape[-2:])
        return super().forward(F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)))

    def _missing(self, size: int) -> int:
        kernel, stride = self.kernel_size[0], self.stride[0]
        return max((-(-size // stride) - 1) * stride + kernel - size, 0)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Block(nn.Module):
    """Expand, convolve each channel by itself, project; with a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        if expansion > 1:
            self._expand_conv = nn.Conv2d(inputs, width, 1, bias=False)
            self._bn0 = _norm(width)
        self._depthwise_conv = _SameConv(width, width, kernel, stride, groups=width, bias=False)
        self._bn1 = _norm(width)
        self._project_conv = nn.Conv2d(width, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)
        self.expands = expansion > 1
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        hidden = F.relu6(self._bn1(self._depthwise_conv(hidden)))
        hidden = self._bn2(self._project_conv(hidden))
        return x + hidden if self.is_residual else hidden


class Trunk(nn.Module):
    """[B, 3, H, W] of deviation 1 -> the outputs of the blocks ``taps``, from the finest to the coarsest."""

    def __init__(self, taps: dict[int, int]) -> None:
        super().__init__()
        self.taps = taps
        self._conv_stem = _SameConv(3, STEM_CHANNELS, 3, 2, bias=False)
        self._bn0 = _norm(STEM_CHANNELS)
        self._blocks = nn.ModuleList()
        inputs = STEM_CHANNELS
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for repeat in range(repeats if len(self._blocks) <= max(taps) else 0):
                self._blocks.append(_Block(inputs, outputs, kernel, 1 if repeat else stride, expansion))
                inputs = outputs

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return what is read."""
        x = F.relu6(self._bn0(self._conv_stem(pixels)))
        taps = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in self.taps:
                taps.append(x)
        return taps

    def take(self, deeper: Trunk) -> None:
        """Copy the weights of the same stages of a trunk that has those and more."""
        weights = deeper.state_dict()
        self.load_state_dict({name: weights[name] for name in self.state_dict()})

    def load(self, path: Path) -> None:
        """Start from ImageNet weights; what the file holds beyond these stages is left out.

        Raises:
            KeyError: The file lacks a tensor; the message names it.
        """
        saved = load_file(path)
        wanted = {name: value for name, value in self.state_dict().items() if "num_batches" not in name}
        state = {name: saved[name].float() for name in wanted}
        state["_conv_stem.weight"] *= INPUT_DEVIATION
        self.load_state_dict(state, strict=False)


class LiteGlance(nn.Module):
    """The look at the whole frame, at half resolution: [B, 3, H, W] -> [B, features, h, w].

    The trunk's last stage sees far; from there a pyramid of sums leads back to the cells.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.trunk = Trunk(GLANCE_TAPS)
        self.laterals = nn.ModuleList(nn.Conv2d(channels, features, 1) for channels in GLANCE_TAPS.values())
        self.merges = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(features, features, 3, padding=1, bias=False), nn.BatchNorm2d(features), nn.ReLU()
            )
            for _ in range(2)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features of every cell."""
        at_4, at_8, at_16, at_32 = (
            lateral(tap)
            for lateral, tap in zip(self.laterals, self.trunk(F.avg_pool2d(pixels, 2)), strict=True)
        )
        x = self.merges[0](at_16 + _grown(at_32, at_16))
        x = self.merges[1](at_8 + _grown(x, at_8))
        return F.relu(at_4 + _grown(x, at_4))


class CloseLook(nn.Module):
    """The look at a crop, at full resolution: [N, 3, 4 n, 4 n] -> [N, channels, n, n], n x n cells."""

    channels = 4 * CLOSE_TAPS[0] + CLOSE_TAPS[2] + CLOSE_TAPS[4]

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk(CLOSE_TAPS)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return what is seen in every cell; the finest stage has four values there for each channel."""
        at_2, at_4, at_8 = self.trunk(pixels)
        return torch.cat((F.pixel_unshuffle(at_2, 2), at_4, _grown(at_8, at_4)), dim=1)


def _grown(coarse: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(coarse, size=like.shape[-2:], mode="bilinear", align_corners=False)
