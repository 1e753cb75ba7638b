"""ESPNet, written from its paper so that its published weights can be run beside ours.

S. Mehta et al., "ESPNet: Efficient Spatial Pyramid of Dilated Convolutions for Semantic Segmentation", 2018:
reduce, split into dilations, transform, merge by hierarchical sums. Modules are named as its tensors are.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

CLASSES = 12  # the last is void
DILATIONS = (1, 2, 4, 8, 16)


class _Conv(nn.Module):
    """A convolution without bias, "same" for its dilation, under the name ``conv``."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class _Norm(nn.Module):
    """Batch normalisation and a PReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(x))
        return out


class _ConvNorm(_Conv):
    """Convolution, batch normalisation, PReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, 3, stride)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class _Pyramid(nn.Module):
    """One reduction, five dilated convolutions, merged by sums that grow with the dilation."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, is_residual: bool = True) -> None:
        super().__init__()
        width = outputs // len(DILATIONS)
        self.c1 = _Conv(inputs, width, 3 if stride == 2 else 1, stride)
        for dilation in DILATIONS:
            channels = outputs - 4 * width if dilation == 1 else width
            setattr(self, f"d{dilation}", _Conv(width, channels, 3, dilation=dilation))
        self.is_residual = is_residual

    def merge(self, x: Tensor) -> Tensor:
        """Return what the five branches make of x, side by side."""
        reduced = self.c1(x)
        first, *others = (getattr(self, f"d{dilation}")(reduced) for dilation in DILATIONS)
        sums = [others[0]]
        for branch in others[1:]:
            sums.append(sums[-1] + branch)
        return torch.cat((first, *sums), dim=1)


class _Block(_Pyramid):
    """A pyramid with batch normalisation and PReLU, and a shortcut where it is residual."""

    def __init__(self, inputs: int, outputs: int, *, is_residual: bool = True) -> None:
        super().__init__(inputs, outputs, is_residual=is_residual)
        self.bn = _Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        merged = self.merge(x)
        out: Tensor = self.bn(x + merged if self.is_residual else merged)
        return out


class _Down(_Pyramid):
    """A pyramid behind a reduction of stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, stride=2)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.merge(x)))
        return out


class _Encoder(nn.Module):
    """Three levels, each read by the next together with the shrunken frame."""

    def __init__(self, p: int, q: int) -> None:
        super().__init__()
        self.level1 = _ConvNorm(3, 16, stride=2)
        self.b1 = _Norm(19)
        self.level2_0 = _Down(19, 64)
        self.level2 = nn.ModuleList(_Block(64, 64) for _ in range(p))
        self.b2 = _Norm(131)
        self.level3_0 = _Down(131, 128)
        self.level3 = nn.ModuleList(_Block(128, 128) for _ in range(q))
        self.b3 = _Norm(256)
        self.classifier = _Conv(256, CLASSES, 1)

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features at 1/2 and 1/4 of the frame, and logits at 1/8."""
        half = F.avg_pool2d(frame, 3, stride=2, padding=1)
        quarter = F.avg_pool2d(half, 3, stride=2, padding=1)
        at_2 = self.b1(torch.cat((self.level1(frame), half), dim=1))
        first = self.level2_0(at_2)
        at_4 = self.b2(torch.cat((_through(self.level2, first), first, quarter), dim=1))
        second = self.level3_0(at_4)
        at_8 = self.b3(torch.cat((second, _through(self.level3, second)), dim=1))
        return at_2, at_4, self.classifier(at_8)


class ESPNet(nn.Module):
    """BGR [B, 3, H, W], normalised -> logits [B, 12, H, W]; H and W are multiples of 8."""

    def __init__(self, p: int = 2, q: int = 8) -> None:
        super().__init__()
        self.encoder = _Encoder(p, q)
        self.br = nn.BatchNorm2d(CLASSES, eps=1e-3)
        self.up_l3 = nn.Sequential(_up())
        self.level3_C = _Conv(131, CLASSES, 1)
        self.combine_l2_l3 = nn.Sequential(
            _Norm(2 * CLASSES), _Block(2 * CLASSES, CLASSES, is_residual=False)
        )
        self.up_l2 = nn.Sequential(_up(), _Norm(CLASSES))
        self.conv = _ConvNorm(19 + CLASSES, CLASSES)
        self.classifier = _up()

    def forward(self, frame: Tensor) -> Tensor:
        """Label every pixel."""
        at_2, at_4, logits = self.encoder(frame)
        coarse = self.up_l3(self.br(logits))
        middle = self.up_l2(self.combine_l2_l3(torch.cat((self.level3_C(at_4), coarse), dim=1)))
        out: Tensor = self.classifier(self.conv(torch.cat((middle, at_2), dim=1)))
        return out


def _up() -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(CLASSES, CLASSES, 2, stride=2, bias=False)


def _through(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def load_espnet(weights: Path) -> ESPNet:
    """Load the published weights; every tensor must have its place."""
    net = ESPNet()
    state = {name: value for name, value in load_file(weights).items() if "num_batches" not in name}
    missing = net.load_state_dict(state, strict=False)
    left = [name for name in missing.missing_keys if "num_batches" not in name] + missing.unexpected_keys
    if left:
        raise KeyError(f"{weights}: tensors without a place, or places without a tensor: {left}")
    return net.eval()
