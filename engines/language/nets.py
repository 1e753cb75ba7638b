"""The reader: a transformer of BERT's form with a pointer to the first and last piece of an answer."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from engines.language.config import NetConfig

#: What BERT's layers are called, by what they are called here.
LAYER_NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mix": "attention.output.dense",
    "mix_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "narrow_norm": "output.LayerNorm",
}
NORM_EPS = 1e-12


class Layer(nn.Module):
    """One layer of BERT: attention and feed-forward, normed after each."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))
        self.widen = nn.Linear(width, config.feed_forward)
        self.narrow = nn.Linear(config.feed_forward, width)
        self.mix_norm, self.narrow_norm = (nn.LayerNorm(width, NORM_EPS) for _ in range(2))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, ignored: Tensor) -> Tensor:
        """Read x [n, T, width]; ``ignored`` [n, 1, 1, T] is added to the attention."""
        split = (x.shape[0], x.shape[1], self.heads, x.shape[2] // self.heads)
        query, key, value = (
            part(x).reshape(split).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        seen = self.attend(query, key, value, ignored)
        x = self.mix_norm(x + self.dropout(self.mix(seen.transpose(1, 2).reshape(x.shape))))
        return self.narrow_norm(x + self.dropout(self.narrow(functional.gelu(self.widen(x)))))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, ignored: Tensor) -> Tensor:
        """Scaled dot-product attention."""
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=ignored.to(query.dtype))


class Reader(nn.Module):
    """Points at an answer in a window, or at the first piece where there is none."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        self.pieces = nn.Embedding(config.vocabulary, config.width)
        self.places = nn.Embedding(config.length, config.width)
        self.kinds = nn.Embedding(2, config.width)
        self.norm = nn.LayerNorm(config.width, NORM_EPS)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.pointer = nn.Linear(config.width, 2)

    def forward(self, ids: Tensor, begin: Tensor) -> tuple[Tensor, Tensor]:
        """Read.

        Args:
            ids: int64 [n, T], 0 where there is nothing.
            begin: int64 [n], where the window begins.

        Returns:
            The pieces' meanings [n, T, width], and their logits [n, T, 2] as first and as last piece.
        """
        at = torch.arange(ids.shape[1], device=ids.device)
        kinds = (at >= begin[:, None]).long()
        x = self.norm(self.pieces(ids) + self.places(at) + self.kinds(kinds))
        ignored = (ids == 0)[:, None, None].to(x.dtype) * -1e4
        for layer in self.layers:
            x = layer(x, ignored)
        return x, self.pointer(x).float()

    def load_base(self, folder: Path, old_numbers: list[int]) -> None:
        """Take the weights of a BERT.

        Args:
            folder: Has ``model.safetensors``.
            old_numbers: The number that each piece has there.
        """
        saved = load_file(folder / "model.safetensors")
        own = {
            "pieces.weight": saved["embeddings.word_embeddings.weight"][old_numbers],
            "places.weight": saved["embeddings.position_embeddings.weight"][: self.config.length],
            "kinds.weight": saved["embeddings.token_type_embeddings.weight"],
        }
        for part in ("weight", "bias"):
            own[f"norm.{part}"] = saved[f"embeddings.LayerNorm.{part}"]
            for number in range(self.config.layers):
                for ours, theirs in LAYER_NAMES.items():
                    own[f"layers.{number}.{ours}.{part}"] = saved[f"encoder.layer.{number}.{theirs}.{part}"]
        missing, _ = self.load_state_dict(own, strict=False)
        if set(missing) != {"pointer.weight", "pointer.bias"}:
            raise ValueError(f"{folder}: expected weights for all but the pointer, {missing} are missing")

    def freeze_embeddings(self) -> None:
        """Leave the embeddings as they are."""
        for part in (self.pieces, self.places, self.kinds, self.norm):
            part.requires_grad_(False)


def base_folder(package: str) -> Path:
    """Where an installed package of weights has them; the package itself is not imported.

    Raises:
        FileNotFoundError: It is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(f"{package}: expected the package of the base weights, it is not installed")
    return Path(found.submodule_search_locations[0]) / "model"
