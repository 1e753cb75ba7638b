"""The nets of glance and refine.

The frame is seen on a grid of cells, ``CELL_PX`` pixels wide. The latent ``z`` of a cell holds one logit per
class and ``logit_px`` x ``logit_px`` pixels, and a mark: 0 after the glance, ``limit`` once refined. The
encoder glances at half resolution; each step refines, at full resolution, only the tiles that promise the
largest gain, or that are the least decided.

Shapes: B frames, H x W pixels, h x w cells, T tiles of n x n cells (``tile_cells``), Z latent channels,
X context channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the name that every torch program uses)

from engines.vision.config import NetConfig
from engines.vision.lite0 import CloseLook, LiteGlance

CELL_PX = 4
PIXEL_CHANNELS = 3 * CELL_PX * CELL_PX
HEAD_HIDDEN = 32
DOUBTS = 3
LEAST_DOUBT = 1e-3
MARK = (0, 0, 0, 0, 0, 1)  # padding that appends the mark to the logits
HALO_CELLS = 2  # eaten by the two valid 3 x 3 convolutions of the refiner


def normalise_exposure(frame: Tensor) -> Tensor:
    """Give every frame mean 0 and deviation 1 over all its pixels and channels; [B, 3, H, W] in and out."""
    mean = frame.mean(dim=(1, 2, 3), keepdim=True)
    centred = frame - mean
    variance = (centred * centred).mean(dim=(1, 2, 3), keepdim=True)
    return centred / (variance.sqrt() + 0.02)


def per_tile(cells: Tensor, tile_cells: int) -> Tensor:
    """Average the cells of each tile: [B, 1, h, w] -> [B, T], tiles in raster order."""
    return F.avg_pool2d(cells, tile_cells).flatten(1)


def decode(z: Tensor, logit_px: int) -> Tensor:
    """Read the logits out of a latent, between them by interpolation: [B, Z, h, w] -> [B, classes, H, W]."""
    logits = F.pixel_shuffle(z[:, :-1], CELL_PX // logit_px)
    if logit_px == 1:
        return logits
    return F.interpolate(logits, scale_factor=float(logit_px), mode="bilinear", align_corners=False)


def _conv_norm(
    inputs: int, outputs: int, stride: int = 1, kernel: int = 3, padding: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class _Residual(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv_norm(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class PlainGlance(nn.Module):
    """The look at the whole frame, at half resolution: [B, 3, H, W] -> [B, features, h, w]."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.at_4 = _conv_norm(3, 32, stride=2)
        self.at_8 = nn.Sequential(_conv_norm(32, 48, stride=2), _Residual(48))
        self.at_16 = nn.Sequential(_conv_norm(48, 64, stride=2), _Residual(64), _Residual(64))
        self.to_8 = nn.Conv2d(64, 48, 1)
        self.to_4 = nn.Conv2d(48, 32, 1)
        self.merge = _conv_norm(32, features)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features of every cell."""
        fine = self.at_4(F.avg_pool2d(pixels, 2))
        middle = self.at_8(fine)
        coarse = self.at_16(middle)
        middle = F.relu(middle + F.interpolate(self.to_8(coarse), scale_factor=2.0, mode="nearest"))
        features: Tensor = self.merge(
            fine + F.interpolate(self.to_4(middle), scale_factor=2.0, mode="nearest")
        )
        return features


GLANCES = {"plain": PlainGlance, "lite0": LiteGlance}


def doubts(z: Tensor, classes: int) -> Tensor:
    """Say how undecided the logits of a latent are: [B, Z, h, w] -> [B, DOUBTS, h, w], each in [0, 1].

    The entropy, over that of a uniform guess, as mean and maximum over the logits of a cell; and what the
    likeliest class leaves to the others, as mean.
    """
    log_p = z[:, :-1].float().unflatten(1, (classes, -1)).log_softmax(1)
    p = log_p.exp()
    entropy = -(p * log_p).sum(1) / math.log(classes)
    return torch.stack((entropy.mean(1), entropy.amax(1), 1 - p.amax(1).mean(1)), dim=1).to(z.dtype)


class ContextHead(nn.Module):
    """Predicts, per cell, the error rate that no step can repair and what a refinement would gain.

    The error of a pixel counts as much as its class; the gain is the drop of that rate, in hundredths. What
    is left depends on the context alone, so that a step changes the energy only by its gain; a cell that was
    refined promises nothing more, so that enough steps refine every tile once.
    """

    is_of_labels = False

    def __init__(self, config: NetConfig, latent: int) -> None:
        super().__init__()
        self.limit, self.classes = config.limit, config.classes
        self.of_context = nn.Conv2d(PIXEL_CHANNELS + config.features + DOUBTS, HEAD_HIDDEN, 1)
        self.of_latent = nn.Conv2d(latent, HEAD_HIDDEN, 1, bias=False)
        self.left = nn.Conv2d(HEAD_HIDDEN, 1, 1)
        self.gain = nn.Conv2d(HEAD_HIDDEN, 1, 1)

    def remember(self, z: Tensor, seen: Tensor) -> Tensor:
        """Return what to know of the frame at every step, computed once: [B, HEAD_HIDDEN, h, w]."""
        hidden: Tensor = self.of_context(torch.cat((seen, doubts(z, self.classes)), dim=1))
        return hidden

    def forward(self, z: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Return (logit of the error rate that would be left, gain), each float32 [B, 1, h, w].

        Args:
            z: [B, Z, h, w].
            known: What ``remember`` returned of the glance.
        """
        unrefined = 1 - z[:, -1:].float() / self.limit
        gain = self.gain(F.relu(self.of_latent(z) + known)).float()
        return self.left(F.relu(known)).float(), F.softplus(gain) * unrefined


class DoubtHead(nn.Module):
    """Predicts the same from nothing but how undecided a cell is now, and was after the glance.

    So few weights learn from a few dozen frames without learning those frames. What is left of a refined
    cell is read from its own labels. The doubts are read in decibels; at first the error rate is about what
    the likeliest class leaves to the others, the plain confidence of the softmax. Noise makes labels wrong
    and not undecided; it shows in marks that are neither those of guessed cells nor those of refined ones.
    """

    is_of_labels = True

    def __init__(self, config: NetConfig, latent: int) -> None:
        super().__init__()
        self.limit, self.classes, self.tile_cells = config.limit, config.classes, config.tile_cells
        self.left = nn.Conv2d(2 * DOUBTS + 2, 1, 1)
        self.gain = nn.Conv2d(2 * DOUBTS + 2, 1, 1)
        with torch.no_grad():
            for weight in self.parameters():
                weight.zero_()
            self.left.weight[0, DOUBTS - 1] = math.log(10) / 10

    def remember(self, z: Tensor, seen: Tensor) -> Tensor:
        """Return the doubts of the glance, in decibels: [B, DOUBTS, h, w]."""
        return 10 * doubts(z, self.classes).clamp(min=LEAST_DOUBT).log10()

    def forward(self, z: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Return (logit of the error rate that would be left, gain); as ``ContextHead``."""
        refined = z[:, -1:] / self.limit
        strayed = 100 * F.avg_pool2d(torch.minimum(refined.abs(), (1 - refined).abs()), self.tile_cells)
        strayed = F.interpolate(strayed, scale_factor=float(self.tile_cells), mode="nearest")
        now = known + refined * (self.remember(z, known) - known)
        inputs = torch.cat((now, known, refined), dim=1)
        left = self.left(torch.cat((inputs, refined * strayed), dim=1))
        gain = self.gain(torch.cat((inputs, strayed), dim=1))
        return left.float(), F.softplus(gain.float()) * (1 - refined.float())


HEADS = {"context": ContextHead, "doubts": DoubtHead}


class Refiner(nn.Module):
    """Predicts the latent of a tile anew, from its latent, its pixels and its features, halo included.

    The same weights serve every step and tile, and the convolutions are valid:
    [N, Z + 48 + features, n + 2 HALO_CELLS, n + 2 HALO_CELLS] -> [N, Z, n, n].
    """

    def __init__(self, config: NetConfig, latent: int) -> None:
        super().__init__()
        first, second = config.refiner_widths
        self.limit, self.latent = config.limit, latent
        self.reread = config.features if config.reread_features else 0
        self.look = CloseLook() if config.close_look == "lite0" else None
        looked = CloseLook.channels if self.look else PIXEL_CHANNELS
        self.layers = nn.Sequential(
            _conv_norm(latent + looked + config.features, first, kernel=1, padding=0),
            _conv_norm(first, second, padding=0),
            _conv_norm(second, second, padding=0),
        )
        self.dropout = nn.Dropout2d(config.dropout)
        self.last = nn.Conv2d(second + self.reread, latent - 1, 1)

    def forward(self, crops: Tensor) -> Tensor:
        """Return the refined and marked latent, inside the bounds of the state."""
        hidden = self.layers(self._looked_at(crops))
        if self.reread:
            inner = slice(HALO_CELLS, -HALO_CELLS)
            hidden = torch.cat((hidden, crops[:, -self.reread :, inner, inner]), dim=1)
        return F.pad(self.last(self.dropout(hidden)), MARK, value=self.limit).clamp(-self.limit, self.limit)

    def start_as(self, net: GlanceAndRefine) -> None:
        """Let a refinement repeat the glance's guess, so that all it has to learn is what to change.

        That takes a last layer that reads the features of the glance again. The close look begins as the
        glance's, where both are of one kind.
        """
        with torch.no_grad():
            if self.reread:
                self.last.weight.zero_()[:, -self.reread :].copy_(net.first_guess.weight)
                self.last.bias.copy_(net.first_guess.bias)
            if self.look is not None and isinstance(net.glance, LiteGlance):
                self.look.trunk.take(net.glance.trunk)

    def _looked_at(self, crops: Tensor) -> Tensor:
        """Put what the close look sees in the place of the pixels."""
        if self.look is None:
            return crops
        z, pixels, features = crops.tensor_split((self.latent, self.latent + PIXEL_CHANNELS), dim=1)
        return torch.cat((z, self.look(F.pixel_shuffle(pixels, CELL_PX)), features), dim=1)


class GlanceAndRefine(nn.Module):
    """All weights of the model, and the dense passes that training uses.

    The context of a frame is [pixels | features | what the head remembers], all per cell: [B, X, h, w].
    """

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        self.latent = config.classes * (CELL_PX // config.logit_px) ** 2 + 1
        self.seen_channels = PIXEL_CHANNELS + config.features  # of the context: what the refiner reads
        self.glance = GLANCES[config.glance](config.features)
        self.dropout = nn.Dropout2d(config.dropout)
        self.first_guess = nn.Conv2d(config.features, self.latent - 1, 1)
        self.head = HEADS[config.head](config, self.latent)
        self.refiner = Refiner(config, self.latent)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        height_px, width_px = self.config.size_px
        return height_px // CELL_PX, width_px // CELL_PX

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.first_guess.weight.dtype

    def guess(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Glance at exposure-normalised RGB: [B, 3, H, W] -> z [B, Z, h, w], features [B, features, h, w]."""
        features = self._glance(pixels)
        logits = self.first_guess(self.dropout(features)).clamp(-self.config.limit, self.config.limit)
        return F.pad(logits, MARK), features

    def _glance(self, pixels: Tensor) -> Tensor:
        """Look at the frame, at another scale than half resolution if the recipe says so."""
        zoom = 2 * self.config.glance_scale
        if zoom == 1:
            features: Tensor = self.glance(pixels)
            return features
        cells = [size // CELL_PX for size in pixels.shape[-2:]]
        seen = self.glance(F.interpolate(pixels, scale_factor=zoom, mode="bilinear", align_corners=False))
        return F.interpolate(seen, size=cells, mode="bilinear", align_corners=False)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Glance, and keep what the steps will read: [B, 3, H, W] -> z [B, Z, h, w], context [B, X, h, w]."""
        z, features = self.guess(pixels)
        seen = torch.cat((F.pixel_unshuffle(pixels, CELL_PX), features), dim=1)
        return z, torch.cat((seen, self.head.remember(z.detach(), seen.detach())), dim=1)

    def predict(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return (logit of the error rate that would be left, gain), each float32 [B, 1, h, w]."""
        logit, gain = self.head(z, context[:, self.seen_channels :])
        return logit, gain

    def energy(self, z: Tensor, context: Tensor) -> Tensor:
        """Return the predicted error rate of every tile, float32 [B, T]: what would be left, and the gain.

        So a step lowers the energy by what it was expected to gain, and the halt weighs just that.
        """
        left, gain = self.predict(z, context)
        return per_tile(left.sigmoid() + gain / 100, self.config.tile_cells)

    def urgency(self, z: Tensor, context: Tensor) -> Tensor:
        """Say which tiles a step should refine, the highest first: [B, T]; 0 for one that was refined."""
        if self.config.order == "gain":
            return per_tile(self.predict(z, context)[1], self.config.tile_cells)
        unrefined = 1 - z[:, -1:] / self.config.limit
        return per_tile(doubts(z, self.config.classes)[:, :1] * unrefined, self.config.tile_cells)

    def haloed(self, z: Tensor, context: Tensor) -> Tensor:
        """Return what the refiner reads, with a rim of zeros: [B, Z + X', h + 2 halo, w + 2 halo]."""
        return F.pad(torch.cat((z, context[:, : self.seen_channels]), dim=1), (HALO_CELLS,) * 4)

    def cut(self, z: Tensor, context: Tensor) -> Tensor:
        """Cut every tile out, with its halo: [B, T, Z + X', n + 2 halo, n + 2 halo]."""
        side = self.config.tile_cells + 2 * HALO_CELLS
        patches = F.unfold(self.haloed(z, context), side, stride=self.config.tile_cells)
        return patches.transpose(1, 2).unflatten(2, (-1, side, side))

    def refine_tiles(self, z: Tensor, context: Tensor, chosen: Tensor) -> Tensor:
        """Refine the tiles of those numbers, int64 [m], in every frame: [B, Z, h, w] -> [B, Z, h, w]."""
        side = self.config.tile_cells
        crops = self.cut(z, context)[:, chosen]
        refined = self.refiner(crops.flatten(0, 1)).unflatten(0, crops.shape[:2])
        patches = F.unfold(z, side, stride=side)
        patches[..., chosen] = refined.flatten(2).transpose(1, 2)
        return F.fold(patches, z.shape[-2:], side, stride=side)

    def refine_all(self, z: Tensor, context: Tensor) -> Tensor:
        """Refine every tile at once: [B, Z, h, w] -> [B, Z, h, w]."""
        rows, columns = (cells // self.config.tile_cells for cells in z.shape[-2:])
        return self.refine_tiles(z, context, torch.arange(rows * columns, device=z.device))

    @property
    def pretrained(self) -> list[nn.Module]:
        """The parts that can start from ImageNet weights."""
        looks = (self.glance, self.refiner.look)
        return [look.trunk for look in looks if isinstance(look, LiteGlance | CloseLook)]
