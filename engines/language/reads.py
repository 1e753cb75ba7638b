"""Reads the best windows of many questions, one after the other, and keeps what every read found.

Every rule that stops or chooses is then evaluated on the same reads, without any network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engines.language.data import Library, Question
from sage_edge.irp import Engine
from sage_edge.plugins.language import LanguagePlugin
from sage_edge.plugins.language.questions import Asked, glance
from sage_edge.plugins.language.state import EVIDENCE, FIRST, LAST, MARK, MOST_EVIDENCE, SCORE
from sage_edge.quality import exact_match, token_f1
from sage_edge.runtime.engine import OnnxEngine

Floats = NDArray[np.float64]
#: Windows that are read of each question.
READS = 8
#: Questions that are read side by side.
BATCH = 8


@dataclass(frozen=True)
class Reads:
    """What the reads of N questions found.

    Attributes:
        asked: The questions with their glances.
        z: float32 [N, READS, columns], the rows that were read, in order; a window that is not there has
        no mark. em, f1: float64 [N, READS], of the span that each row points at; 0 where there is none.
        articles: Of each question.
    """

    asked: Sequence[Asked]
    z: NDArray[np.float32]
    em: Floats
    f1: Floats
    articles: Sequence[str]

    def __len__(self) -> int:
        return len(self.asked)


def open_plugin(folder: Path, threads: int = 2) -> LanguagePlugin:
    """The plugin with the reader of a folder, on the CPU."""
    plugin = LanguagePlugin({"model": str(folder)})
    engines: dict[str, Engine] = {
        name: OnnxEngine(recipe.path, threads=threads, sha256=recipe.sha256)
        for name, recipe in plugin.recipes("fp32").items()
    }
    plugin.load(engines)
    return plugin


def read_all(
    plugin: LanguagePlugin, library: Library, questions: Sequence[Question], cache: Path | None = None
) -> Reads:
    """Ask every question of the whole library, and read its READS best windows.

    Args:
        plugin: With its reader.
        library: What is asked.
        questions: What is asked for; their answers may be in another library.
        cache: Where the rows are kept, by the reader's digest; what is there is taken from there, since
            what a read finds hangs on no calibration.
    """
    text = plugin.texts.text(library.paragraphs)
    asked = [glance(question.text, text, plugin.model) for question in questions]
    z = _cached(cache, plugin, len(asked))
    if z is None:
        z = _read(plugin, asked)
        if cache is not None:
            cache.parent.mkdir(parents=True, exist_ok=True)
            np.savez(cache, z=z, sha256=np.array(plugin.model_sha256))
    evidence = plugin.model.slope * z[:, :, SCORE] + plugin.model.offset
    z[:, :, EVIDENCE] = np.clip(evidence, -MOST_EVIDENCE, MOST_EVIDENCE)
    return scored(asked, z, questions)


def scored(asked: Sequence[Asked], z: NDArray[np.float32], questions: Sequence[Question]) -> Reads:
    """Hold what was found against the right answers."""
    em, f1 = np.zeros(z.shape[:2]), np.zeros(z.shape[:2])
    for number, (one, question) in enumerate(zip(asked, questions, strict=True)):
        for row in range(z.shape[1]):
            answer = text_of(one, z[number], row)
            em[number, row] = exact_match(answer, question.answers)
            f1[number, row] = token_f1(answer, question.answers)
    return Reads(asked, z, em, f1, [question.article for question in questions])


def text_of(asked: Asked, rows: NDArray[np.float32], row: int) -> str | None:
    """The span that a row points at; None where it was not read."""
    if rows[row, MARK] < 0.5:
        return None
    first, last = (int(asked.place[row]) + round(float(rows[row, column])) for column in (FIRST, LAST))
    pieces = asked.text.pieces
    passage = asked.text.passages[pieces.passage_of(first)]
    return passage[pieces.starts[first] : pieces.ends[last]]


def _read(plugin: LanguagePlugin, asked: Sequence[Asked]) -> NDArray[np.float32]:
    found = np.zeros((len(asked), READS, plugin.state_shape[1]), np.float32)
    for at in tqdm(range(0, len(asked), BATCH), "read", mininterval=10):
        some = asked[at : at + BATCH]
        z, context, _ = plugin.encode(some)
        for _ in range(READS):
            delta, _ = plugin.advance(z, context, np.ones(len(some), np.float32))
            z = z + delta
        found[at : at + len(some)] = z[:, :READS]
    return found


def _cached(cache: Path | None, plugin: LanguagePlugin, count: int) -> NDArray[np.float32] | None:
    if cache is None or not cache.is_file():
        return None
    with np.load(cache) as kept:
        if str(kept["sha256"]) != plugin.model_sha256 or len(kept["z"]) != count:
            return None
        z: NDArray[np.float32] = kept["z"]
        return z
