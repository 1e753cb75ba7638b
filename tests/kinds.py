"""Plugins whose inputs and answers are of other kinds than an image and its mask."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sage_edge import TEXT, Answer, InputKind
from sage_edge.errors import FrameError
from tests.quadratic import QuadraticPlugin


class NumbersKind(InputKind):
    """A line of numbers, as somebody outside the project would add it."""

    name = "line of numbers"
    key = "numbers"
    suffixes: ClassVar = {".csv": "text/csv"}
    schema: ClassVar = {"type": "array", "items": {"type": "number"}, "minItems": 1}
    example: ClassVar = [1.0, 2.5]

    def from_part(self, part, limits):
        try:
            return self.from_json([float(cell) for cell in part.content.decode().split(",")], limits)
        except ValueError as exc:
            raise FrameError(f"numbers: expected them with commas between: {exc}") from exc

    def from_json(self, value, limits):
        if not isinstance(value, list):
            raise FrameError(f"numbers: expected a list, got {value!r}")
        return np.array(value, np.float32)


class NumbersPlugin(QuadraticPlugin):
    """Moves towards six numbers.

    State space: float32 [6].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the numbers.
    Coherence contribution: the fall of that distance.
    """

    name = "numbers"
    takes = NumbersKind()


class LettersPlugin(QuadraticPlugin):
    """Moves towards how often a text has each of the letters a to f.

    State space: float32 [6].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the counts.
    Coherence contribution: the fall of that distance.
    """

    name = "letters"
    takes = TEXT

    def prepare(self, frame):
        return np.array([frame.count(letter) for letter in "abcdef"], np.float32)


class PicturePlugin(QuadraticPlugin):
    """Answers with a picture of two pixels.

    State space: float32 [6].
    Noise model: Gaussian noise on the state.
    Energy: mean squared distance to the pixels.
    Coherence contribution: the fall of that distance.
    """

    name = "picture"

    def answers(self, z, inputs):
        return [Answer(np.rint(row).astype(np.uint8).reshape(1, 2, 3)) for row in z]
