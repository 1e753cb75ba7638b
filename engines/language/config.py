"""Everything that a recipe may vary, read from one TOML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engines.recipes import build, read_toml


@dataclass(frozen=True)
class DataConfig:
    """What the reader learns from.

    Attributes:
        train: The file of questions, of the form of SQuAD 1.1.
        dev: That of the questions whose figures are reported.
        sentences: A file of sentences with questions, of the form of QAMR; it may be left out.
        mixed: A title in ``train`` that is no article but paragraphs of many.
        calibration_share: Of the articles of ``train``, kept out of training.
    """

    train: str
    dev: str
    mixed: str
    calibration_share: float
    sentences: str = ""


@dataclass(frozen=True)
class NetConfig:
    """The reader.

    Attributes:
        base: The Python package whose weights it starts from.
        vocabulary: Pieces that are kept of the base's vocabulary.
        layers, width, heads, feed_forward: Of the transformer.
        question_pieces: Of a question, those that are read.
        window_pieces, stride: How a text is cut.
        span_pieces: Of an answer, at most.
        dropout: Of what each half of a layer adds, the share that training leaves out.
    """

    base: str
    vocabulary: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    question_pieces: int
    window_pieces: int
    stride: int
    span_pieces: int
    dropout: float

    @property
    def length(self) -> int:
        """Pieces that the reader takes: a question and a window, with three marks."""
        return self.question_pieces + self.window_pieces + 3


@dataclass(frozen=True)
class TrainConfig:
    """How the weights are fitted.

    Attributes:
        seed, batch, iterations: Of the training.
        learning_rate, weight_decay, warm_up: Of AdamW; the rate rises over the share ``warm_up`` of the
            iterations and falls on a line to nothing.
        null_share: Of the examples, windows that do not answer the question though BM25 ranks them first.
        sentence_share: Of the examples, sentences of ``data.sentences``.
        shortest_window: A window is cut to a random length between this many pieces and all.
        bucket: So many batches are drawn together and sorted by length, so that little is padded.
    """

    seed: int
    batch: int
    iterations: int
    learning_rate: float
    weight_decay: float
    warm_up: float
    null_share: float
    sentence_share: float
    shortest_window: int
    bucket: int


@dataclass(frozen=True)
class Recipe:
    """One reader: what it is called, what it learns from and how. ``note`` goes into the model card."""

    name: str
    version: str
    licence: str
    note: str
    data: DataConfig
    net: NetConfig
    train: TrainConfig


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        TypeError: A key is missing or unknown; the message names it.
    """
    recipe: Recipe = build(Recipe, read_toml(path))
    return recipe
