"""A text as windows of word pieces, each piece with its place in the characters that were sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sage_edge.errors import FrameTooLargeError

Int32 = NDArray[np.int32]
#: Characters that are cut into pieces at once; more are cut at white space, where there is some.
_CHUNK = 1 << 15


@dataclass(frozen=True, slots=True)
class WindowSize:
    """How a text is cut.

    Attributes:
        pieces: Of a window, at most.
        stride: Pieces from the beginning of a window to that of the next. Windows overlap, so that a span of
            up to ``pieces - stride`` is whole in one of them.
    """

    pieces: int
    stride: int


@dataclass(frozen=True, slots=True)
class Pieces:
    """The word pieces of a text, passage after passage.

    Attributes:
        ids: int32 [n], numbers of the vocabulary.
        starts, ends: int32 [n], the code points of the passage that the piece stands for.
        firsts: int32 [passages + 1], where the pieces of each passage begin; the last is n.
    """

    ids: Int32
    starts: Int32
    ends: Int32
    firsts: Int32

    @property
    def size_bytes(self) -> int:
        """What the arrays hold."""
        return sum(part.nbytes for part in (self.ids, self.starts, self.ends, self.firsts))

    def passage_of(self, piece: int) -> int:
        """The passage that a piece is of."""
        return int(np.searchsorted(self.firsts, piece, side="right")) - 1


def pieces_of(tokenizer: Tokenizer, passages: Sequence[str], most: int | None = None) -> Pieces:
    """Cut passages into word pieces; a passage may have none.

    Args:
        tokenizer: What cuts, with offsets in code points.
        passages: The text.
        most: Pieces that are too many.

    Raises:
        FrameTooLargeError: There are more than ``most``; the rest of the text was not looked at.
    """
    ids: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    places: list[NDArray[np.int32]] = [np.empty((0, 2), np.int32)]
    firsts, count = [0], 0
    for passage in passages:
        for start, chunk in _chunks(passage):
            cut = tokenizer.encode(chunk, add_special_tokens=False)
            ids.append(np.array(cut.ids, np.int32))
            places.append(np.array(cut.offsets, np.int32).reshape(-1, 2) + start)
            count += len(cut.ids)
            if most is not None and count > most:
                raise FrameTooLargeError(f"text: expected at most {most} word pieces, got more")
        firsts.append(count)
    starts, ends = np.concatenate(places).T
    return Pieces(np.concatenate(ids), starts.copy(), ends.copy(), np.array(firsts, np.int32))


def windows_of(pieces: Pieces, size: WindowSize) -> Int32:
    """Where the windows begin and end: int32 [windows, 2], in pieces. None spans two passages."""
    found = [
        (start, min(start + size.pieces, last))
        for first, last in zip(pieces.firsts[:-1], pieces.firsts[1:], strict=True)
        for start in range(first, max(last - size.pieces + size.stride, min(first + 1, last)), size.stride)
    ]
    return np.array(found, np.int32).reshape(-1, 2)


def _chunks(passage: str) -> Iterator[tuple[int, str]]:
    """Parts of a passage, each with where it begins."""
    start = 0
    while start < len(passage):
        end = start + _CHUNK
        if end < len(passage):
            spaces = [passage.rfind(space, start + 1, end) for space in " \n"]
            end = max(spaces) if max(spaces) > start else end
        yield start, passage[start:end]
        start = end
