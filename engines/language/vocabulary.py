"""Prunes the vocabulary of a WordPiece tokenizer: the most frequent pieces, and single characters.

A vocabulary of 30,522 pieces takes more than half of a small reader's bytes. Rare words are cut into more
pieces instead.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer

#: In this order: their numbers in the pruned vocabulary.
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
#: Where the whole words begin in the vocabulary of BERT, which is sorted by their frequency from there on.
FIRST_WORD = "the"
#: The last code point of the characters that are kept one by one: Latin with its supplements.
LAST_LATIN = 0x24F


def kept_pieces(vocabulary: dict[str, int], size: int) -> list[str]:
    """Choose ``size`` pieces: SPECIAL, then single characters, then the most frequent ones."""
    in_order = sorted(vocabulary, key=lambda piece: vocabulary[piece])
    bare = {piece: piece.removeprefix("##") if len(piece) > 2 else piece for piece in in_order}
    single = [p for p in in_order if len(bare[p]) == 1 and (ord(bare[p]) <= LAST_LATIN or _is_sign(bare[p]))]
    words = in_order[vocabulary[FIRST_WORD] :]
    kept = dict.fromkeys([*SPECIAL, *single])
    for piece in words:
        if len(kept) == size:
            break
        if len(bare[piece]) > 1:
            kept[piece] = None
    return list(kept)


def pruned(tokenizer_json: Path, size: int) -> tuple[Tokenizer, list[int]]:
    """A tokenizer of a pruned vocabulary, and the number that each of its pieces had before.

    It takes no special token from a text: ``[SEP]`` in it is read as the characters that it is.
    """
    described = json.loads(tokenizer_json.read_text(encoding="utf-8"))
    vocabulary = described["model"]["vocab"]
    kept = kept_pieces(vocabulary, size)
    described["model"]["vocab"] = {piece: number for number, piece in enumerate(kept)}
    described |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    return Tokenizer.from_str(json.dumps(described)), [vocabulary[piece] for piece in kept]


def _is_sign(character: str) -> bool:
    return 0x2000 <= ord(character) <= 0x22FF  # punctuation, currency, arrows, mathematical operators
