"""The vision plugin: semantic segmentation by glance and refine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sage_edge.errors import ShapeError
from sage_edge.irp import Answer, Carried, Encoded, Engine, Invariants, LatentPlugin, Recipe
from sage_edge.irp.engine import Float32
from sage_edge.plugins.vision_model import VisionModel, find_model, load_model, read_recipes

#: The model that ships.
DEFAULT_MODEL = "nuclei"
#: Values that are converted at once.
_PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class PreparedFrame:
    """A frame at the network's input size, with the size that it came in.

    Attributes:
        tensor: float32 [3, height, width], RGB in [0, 1].
        height_px, width_px: The size of the frame, which is the size of the answer.
    """

    tensor: Float32
    height_px: int
    width_px: int


class VisionPlugin(LatentPlugin):
    """Label every pixel of an image; refine where it pays.

    State space: a latent float32 [C, h, w] on a coarse grid of the frame, first guessed from a glance
    at reduced resolution. A step looks at the frame's most urgent tiles, by predicted gain or by entropy,
    at full resolution and replaces their part of the latent.
    Noise model: Gaussian noise in the latent, of the standard deviation that the model was trained with.
    Energy: the predicted pixel error rate, learned; the mean over the tiles of the frame. The model says
        how it weighs the pixels, in its energy units.
    Coherence contribution: a fall of this energy, over E_scale, times the plugin's trust weight.
    """

    name = "vision"
    invariants = Invariants(
        state_space="image-latent",
        noise_model="gaussian-latent",
        energy_fn="predicted-pixel-error",
        energy_units="predicted pixel error rate",
    )
    config_keys = ("model",)
    slot_bytes = 16 << 20  # what is refused could never work; benchmarks/memory.py measures what it takes
    folder: Path
    model: VisionModel

    def recipes(self, precision: str) -> Mapping[str, Recipe]:
        """The four graphs of the model that ``model`` names; ``nuclei`` by default."""
        self.folder = find_model(self.config.get("model", DEFAULT_MODEL))
        found = read_recipes(self.folder, precision=precision)
        self.model_sha256 = found["step"].sha256
        return found

    def load(self, engines: Mapping[str, Engine]) -> None:
        """Take the four graphs."""
        self.model = model = load_model(self.folder, engines)
        self.version = model.version
        self.invariants = self.invariants._replace(energy_units=model.energy_units)
        self.halting = self.configured(model.halting)
        self.calibration = model.trust
        self.backend = model.step.backend
        self.step_engine = model.step
        self.state_shape = model.state_shape
        self.context_shapes = model.context_shapes
        self.lo, self.hi, self.step_size = model.lo, model.hi, model.step_size
        self.noise_sigma = model.noise_sigma

    def prepare(self, frame: NDArray[np.generic]) -> PreparedFrame:
        """Check a frame and scale it to the network's input.

        Args:
            frame: uint8 in [0, 255] or float in [0, 1]; [H, W, 3] RGB or [H, W] grey.

        Raises:
            ShapeError: Another shape or dtype, an empty frame, values that are not finite or out of range.
        """
        if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3) or 0 in frame.shape:
            raise ShapeError(f"frame: expected [H, W, 3] or [H, W], got {list(frame.shape)}")
        pixels = _as_uint8(frame)
        image = Image.fromarray(pixels)
        size = (self.model.width, self.model.height)
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        tensor = np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / np.float32(255)
        return PreparedFrame(np.ascontiguousarray(tensor), frame.shape[0], frame.shape[1])

    def input_size(self, x0: PreparedFrame) -> float:
        """Pixels of the frame as it was sent."""
        return x0.height_px * x0.width_px

    def needed_bytes(self, frame: NDArray[np.generic]) -> int:
        """The network's input, and the answer twice: one byte for each pixel of the frame."""
        channels = frame.shape[2] if frame.ndim > 2 else 1
        return 12 * self.model.height * self.model.width + 2 * frame.size // max(1, channels)

    def carry_over(self, first: Float32, earlier: Carried) -> Carried | None:
        """Lay those tiles of a stream's last answer over a first guess whose own first guess is unchanged.

        A tile is held against the guess that it was refined from, not against the last frame's, so that slow
        changes add up until it is refined anew.
        """
        if self.model.streams is None:
            return None
        unchanged = self.model.streams.unchanged(first, earlier.first)
        if not unchanged.any():
            return None
        return Carried(np.where(unchanged, earlier.first, first), np.where(unchanged, earlier.z, first))

    def example(self) -> PreparedFrame:
        """A black frame."""
        return self.prepare(np.zeros((self.model.height, self.model.width, 3), np.uint8))

    def encode(self, inputs: Sequence[PreparedFrame]) -> Encoded:
        """The glance: first latents, context and energies of n frames."""
        out = self.model.encoder.run({"frame": np.stack([frame.tensor for frame in inputs])})
        return Encoded(out["z"], {name: out[name] for name in self.context_shapes}, out["energy"])

    def advance(
        self, z: Float32, context: Mapping[str, Float32], step_size: Float32
    ) -> tuple[Float32, Float32]:
        """Refine the most urgent tiles of n latents: direction and successor's energy terms."""
        out = self.model.step.run({"z": z, **context, "step_size": step_size})
        return out["delta"], out["energy"]

    def energies(self, z: Float32, context: Mapping[str, Float32]) -> Float32:
        """Energy terms of n latents."""
        return self.model.energy.run({"z": z, **context})["energy"]

    def answers(self, z: Float32, inputs: Sequence[PreparedFrame]) -> list[Answer]:
        """Masks of n latents, each at its frame's own size."""
        logits = self.model.decoder.run({"z": z})["logits"]
        masks = logits.argmax(axis=1).astype(np.uint8)
        return [
            Answer(_resize_mask(mask, frame), self.model.classes, self.model.palette)
            for mask, frame in zip(masks, inputs, strict=True)
        ]


def _as_uint8(frame: NDArray[np.generic]) -> NDArray[np.uint8]:
    if frame.dtype == np.uint8:
        return np.ascontiguousarray(frame)
    if not np.issubdtype(frame.dtype, np.floating):
        raise ShapeError(f"frame: expected uint8 or float, got {frame.dtype}")
    least, most = frame.min(), frame.max()
    if not (np.isfinite(least) and np.isfinite(most)):
        raise ShapeError("frame: expected finite values, got NaN or infinity")
    if least < 0 or most > 1:
        raise ShapeError(
            f"frame: expected float values in [0, 1], got {float(least)} to {float(most)}; "
            "send uint8 for [0, 255]"
        )
    pixels, values = np.empty(frame.shape, np.uint8), frame.ravel()
    for first in range(0, frame.size, _PIECE):  # no copy of the whole in between
        piece = slice(first, first + _PIECE)
        pixels.ravel()[piece] = np.rint(values[piece].astype(np.float32) * 255)
    return pixels


def _resize_mask(mask: NDArray[np.uint8], frame: PreparedFrame) -> NDArray[np.uint8]:
    size = (frame.width_px, frame.height_px)
    if mask.shape == size[::-1]:
        return mask
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
