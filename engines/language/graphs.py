"""The two graphs that ship: a step, which reads one window, and the energy of any state.

A state is a row for each candidate window, float32 [B, W, 8 + width]; ``sage_edge.plugins.language.state``
names its columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engines.language.nets import Reader
from sage_edge.plugins.language.state import EVIDENCE, FIRST, LAST, MARK, MOST_EVIDENCE, SHARE

#: Marks the end of question and window in the reader's input; a text cannot have it.
SEP = 3
CLOSED = -1e4


def energy(z: Tensor, prior: Tensor, place: Tensor, facts: Tensor) -> Tensor:
    """One minus the posterior of the likeliest span, while that is at most the limit: [B, 1].

    Above it, where a run reads on, a state that has more windows left is worse, and the posterior decides
    between states that have as many. Else the state of lowest energy, which answers, would be one that had
    not met its rivals yet.

    A window's weight is shared by its spans: the best one has its share, and the others are rivals. Windows
    that point at the same span of the text count together.
    """
    read = (z[:, :, MARK] > 0.5).to(z.dtype)
    window = read * prior * torch.exp(z[:, :, EVIDENCE])
    weight = window * torch.exp(facts[:, 4:5] * z[:, :, SHARE])
    first, last = place + z[:, :, FIRST], place + z[:, :, LAST]
    same = ((first[:, :, None] - first[:, None, :]).abs() < 0.5) & (
        (last[:, :, None] - last[:, None, :]).abs() < 0.5
    )
    of_span = (same.to(z.dtype) * weight[:, None, :]).sum(2) * read
    total = window.sum(1) + ((1 - read) * prior).sum(1) + facts[:, 1]
    doubt, limit = 1 - of_span.amax(1) / total, facts[:, 5]
    offered = (prior > 0).to(z.dtype)
    left = ((1 - read) * offered).sum(1)
    unsure = limit + (1 - limit) * (left + doubt) / (offered.sum(1) + 1)
    return torch.where(doubt <= limit, doubt, unsure)[:, None]


class EnergyGraph(nn.Module):
    """z [B, W, D], prior [B, W], place [B, W], facts [B, 6] -> energy [B, 1]."""

    def forward(self, z: Tensor, prior: Tensor, place: Tensor, facts: Tensor) -> Tensor:
        """Judge any state."""
        return energy(z, prior, place, facts)


class StepGraph(nn.Module):
    """z, ids [B, W, T], prior, place, facts, step_size [B] -> delta [B, W, D], energy [B, 1].

    The energy is that of ``z + step_size * delta``. ``facts`` are where a window begins in its ids, the prior
    of an answer in no window, slope and offset of the evidence over the score, how much a span's share of the
    softmax counts, and the limit of the energy. Where every window was read, ``delta`` is zero.
    """

    reach: Tensor
    at: Tensor

    def __init__(self, net: Reader) -> None:
        super().__init__()
        self.net = net
        length = net.config.length
        self.register_buffer("at", torch.arange(length, dtype=torch.float32), persistent=False)
        ahead = self.at[None, :] - self.at[:, None]
        beyond = ((ahead < 0) | (ahead >= net.config.span_pieces)).float() * CLOSED
        self.register_buffer("reach", beyond, persistent=False)

    def forward(
        self, z: Tensor, ids: Tensor, prior: Tensor, place: Tensor, facts: Tensor, step_size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Read the likeliest window that was not read."""
        waiting = prior * (z[:, :, MARK] < 0.5).to(z.dtype)
        likeliest = waiting.argmax(1)
        rows = torch.arange(z.shape[1], device=z.device)
        chosen = ((rows == likeliest[:, None]) & (waiting > 0)).to(z.dtype)
        found = self.read((chosen[:, :, None] * ids).sum(1), facts)
        delta = chosen[:, :, None] * (found[:, None, :] - z)
        return delta, energy(z + step_size[:, None, None] * delta, prior, place, facts)

    def read(self, ids: Tensor, facts: Tensor) -> Tensor:
        """What a row becomes: ids [B, T] -> [B, D]."""
        meanings, logits = self.net(ids.long(), facts[:, 0])
        null = logits[:, 0, 0] + logits[:, 0, 1]
        is_closed = (ids < 0.5) | (ids == SEP) | (self.at < facts[:, :1])
        logits = logits + is_closed[:, :, None].to(logits.dtype) * CLOSED
        pairs = (logits[:, 1:, None, 0] + logits[:, None, 1:, 1] + self.reach[1:, 1:]).flatten(1)
        best, where = pairs.max(1)
        first = torch.div(where, ids.shape[1] - 1, rounding_mode="floor")
        last = where - first * (ids.shape[1] - 1)
        first, last = first.to(ids.dtype) + 1, last.to(ids.dtype) + 1
        score = best - null
        share = best - torch.cat([pairs, null[:, None]], dim=1).logsumexp(1)
        inside = ((self.at >= first[:, None]) & (self.at <= last[:, None])).to(meanings.dtype)
        meaning = (inside[:, :, None] * meanings).sum(1)
        meaning = meaning / (meaning.square().sum(1, keepdim=True).sqrt() + 1e-6)
        evidence = (facts[:, 2] * score + facts[:, 3]).clamp(-MOST_EVIDENCE, MOST_EVIDENCE)
        read = torch.ones_like(score)
        head = torch.stack([read, score, first, last, evidence, share, 0 * read, 0 * read], dim=1)
        return torch.cat([head, meaning], dim=1)
