"""A key-value cache whose rows may join, leave and differ in length: all rows are aligned at their last token.

Keys carry their position already (rotary embeddings are applied before caching), so moving a row along the
sequence axis does not change what it means; only the padding on its left must be masked.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class AlignedCache:
    """Keys and values of B sequences of different lengths, left-padded to the longest.

    Attributes:
        lengths: int64 [B], tokens cached of each row.
        cache: what the model reads and extends; each layer holds [B, heads, max(lengths), head_dim].
    """

    def __init__(self, cache: DynamicCache, lengths: Tensor) -> None:
        self.cache = cache
        self.lengths = lengths

    @classmethod
    def from_right_padded(cls, cache: DynamicCache, lengths: Tensor, rows: Tensor) -> AlignedCache:
        """Take over a cache of [P] right-padded sequences of ``lengths``, repeated as ``rows`` (int64 [B], into P)."""
        width = int(lengths.max())
        shift = (width - lengths)[rows, None]
        source = (torch.arange(width, device=lengths.device) - shift) % width
        for layer in cache.layers:
            layer.keys = _gather(layer.keys, rows, source)
            layer.values = _gather(layer.values, rows, source)
        return cls(cache, lengths[rows])

    @property
    def width(self) -> int:
        """Cached positions of every row, padding included."""
        return int(self.cache.get_seq_length())

    def mask(self) -> Tensor | None:
        """int64 [B, width + 1]: 0 at padding, 1 at cached tokens and the next one; None when there is no padding."""
        width = self.width
        if bool((self.lengths == width).all()):
            return None
        first = (width - self.lengths)[:, None]
        return (torch.arange(width + 1, device=first.device) >= first).long()

    def extended(self) -> None:
        """Note that the model has appended one token to every row."""
        self.lengths = self.lengths + 1

    def keep(self, rows: Tensor) -> None:
        """Keep only ``rows`` (int64 [K]) and drop positions that are then padding in all of them."""
        self.lengths = self.lengths[rows]
        width = int(self.lengths.max())
        for layer in self.cache.layers:
            layer.keys = layer.keys[rows][:, :, -width:]
            layer.values = layer.values[rows][:, :, -width:]

    def append(self, other: AlignedCache) -> None:
        """Add the rows of ``other`` below ours."""
        width = max(self.width, other.width)
        for ours, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            ours.keys = torch.cat([_widen(ours.keys, width), _widen(theirs.keys, width)])
            ours.values = torch.cat([_widen(ours.values, width), _widen(theirs.values, width)])
        self.lengths = torch.cat([self.lengths, other.lengths])


def new_cache(layers: int) -> DynamicCache:
    """An empty cache that keeps every position of every layer.

    Sliding-window layers keep more than they need, so that all layers stay aligned; their mask cuts the window.
    """
    cache = DynamicCache()
    cache.layers.extend(DynamicLayer() for _ in range(layers))
    return cache


def _gather(states: Tensor, rows: Tensor, source: Tensor) -> Tensor:
    """states [P, heads, W, dim], rows [B], source [B, W] → [B, heads, W, dim]."""
    return states[rows[:, None], :, source].transpose(1, 2).contiguous()


def _widen(states: Tensor, width: int) -> Tensor:
    missing = width - states.shape[-2]
    return torch.nn.functional.pad(states, (0, 0, missing, 0)) if missing else states
