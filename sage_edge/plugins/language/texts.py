"""Texts that were cut and indexed, kept by their digest so that the next question pays nothing for it."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from sage_edge.errors import FrameTooLargeError, ProblemError
from sage_edge.plugins.language.glance import Index, index_of
from sage_edge.plugins.language.windows import Int32, Pieces, WindowSize, pieces_of, windows_of

#: Most windows of a text: about 390,000 word pieces, or 1.7 million characters of English.
MOST_WINDOWS = 4096


@dataclass(frozen=True, slots=True)
class Text:
    """A text that questions can be asked of.

    Attributes:
        text_id: Digest of its passages.
        passages: As they were sent.
        pieces: Its word pieces.
        windows: int32 [n, 2], first piece and end of each window.
        index: Finds the windows for a question.
    """

    text_id: str
    passages: tuple[str, ...]
    pieces: Pieces
    windows: Int32
    index: Index

    @property
    def size_bytes(self) -> int:
        """What it takes to keep it, at most four bytes a character counted."""
        characters = 4 * sum(map(len, self.passages))
        return characters + self.pieces.size_bytes + self.windows.nbytes + self.index.size_bytes


def text_id_of(passages: Sequence[str]) -> str:
    """The digest of passages, as hex; where one ends and the next begins counts."""
    digest = hashlib.sha256()
    for passage in passages:
        content = passage.encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def read_text(
    tokenizer: Tokenizer, size: WindowSize, stems: Int32, text_id: str, passages: tuple[str, ...]
) -> Text:
    """Cut and index a text.

    Raises:
        FrameTooLargeError: It has more than MOST_WINDOWS windows.
        ProblemError: There is no word in it.
    """
    pieces = pieces_of(tokenizer, passages, MOST_WINDOWS * size.stride + size.pieces)
    windows = windows_of(pieces, size)
    if len(windows) > MOST_WINDOWS:
        raise FrameTooLargeError(
            f"text: expected at most {MOST_WINDOWS} windows of {size.pieces} word pieces, got "
            f"{len(windows)}; ask of a part of it, or put short passages together"
        )
    if not len(windows):
        raise ProblemError("text: expected words, got none")
    return Text(text_id, passages, pieces, windows, index_of(pieces, windows, stems))


class TextStore:
    """The texts that were asked of last, up to so many bytes.

    Threads: any.

    Args:
        read: Makes a text of its digest and passages.
        most_bytes: Of all texts together; one that is larger alone is not kept.
    """

    def __init__(self, read: Callable[[str, tuple[str, ...]], Text], most_bytes: int) -> None:
        self._read = read
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, Text] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """What the kept texts take."""
        return self._bytes

    def text(self, passages: tuple[str, ...]) -> Text:
        """The text of passages, read now or before.

        Raises:
            InputError: As ``read``.
        """
        text_id = text_id_of(passages)
        return self._find(text_id) or self._keep(self._read(text_id, passages))

    def by_id(self, text_id: str) -> Text:
        """A text that was sent before.

        Raises:
            ProblemError: It is not kept.
        """
        found = self._find(text_id)
        if found is None:
            raise ProblemError(f"text_id: no text of the id {text_id[:64]!r} is kept; send the text again")
        return found

    def _find(self, text_id: str) -> Text | None:
        with self._lock:
            if text_id in self._kept:
                self._kept.move_to_end(text_id)
            return self._kept.get(text_id)

    def _keep(self, text: Text) -> Text:
        with self._lock:
            if text.text_id not in self._kept and text.size_bytes <= self._most_bytes:
                self._kept[text.text_id] = text
                self._bytes += text.size_bytes
            while self._bytes > self._most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].size_bytes
        return text
