"""A key-value cache whose rows may join, leave and differ in length: all rows are aligned at their last token.

Keys already carry their position (rotary embeddings are applied before caching), so moving a row along the sequence
axis does not change its meaning. Only the padding on its left must be masked.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class AlignedCache:
    """Keys and values of B sequences of different lengths, left-padded to the longest.

    Attributes:
        lengths: int64 [B], number of cached tokens of each row.
        cache: the cache that the model reads and extends; each layer holds [B, heads, max(lengths), head_dim].
    """

    def __init__(self, cache: DynamicCache, lengths: Tensor) -> None:
        self.cache = cache
        self.lengths = lengths

    @classmethod
    def from_right_padded(cls, cache: DynamicCache, lengths: Tensor, rows: Tensor) -> AlignedCache:
        """Take over a cache of P right-padded sequences.

        Args:
            cache: what the model wrote while it read them.
            lengths: int64 [P].
            rows: int64 [B], the sequence that each row of the result repeats.
        """
        width = int(lengths.max())
        shift = (width - lengths)[rows, None]
        source = (torch.arange(width, device=lengths.device) - shift) % width
        for layer in cache.layers:
            layer.keys = _gather(layer.keys, rows, source)
            layer.values = _gather(layer.values, rows, source)
        return cls(cache, lengths[rows])

    @property
    def width(self) -> int:
        """Number of cached positions of every row, padding included."""
        return int(self.cache.get_seq_length())

    def mask(self) -> Tensor | None:
        """Return int64 [B, width + 1]: 0 at padding, 1 at cached tokens and the next one; None without padding."""
        width = self.width
        if bool((self.lengths == width).all()):
            return None
        first = (width - self.lengths)[:, None]
        return (torch.arange(width + 1, device=first.device) >= first).long()

    def count_appended(self) -> None:
        """Count the token that the model has appended to every row."""
        self.lengths = self.lengths + 1

    def keep(self, rows: Tensor) -> None:
        """Keep only ``rows`` (int64 [K]), and drop positions that are then padding in all of them."""
        self.lengths = self.lengths[rows]
        width = int(self.lengths.max())
        for layer in self.cache.layers:
            layer.keys = layer.keys[rows][:, :, -width:]
            layer.values = layer.values[rows][:, :, -width:]

    def append(self, other: AlignedCache) -> None:
        """Append the rows of ``other``."""
        width = max(self.width, other.width)
        for ours, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            ours.keys = torch.cat([_pad_left(ours.keys, width), _pad_left(theirs.keys, width)])
            ours.values = torch.cat([_pad_left(ours.values, width), _pad_left(theirs.values, width)])
        self.lengths = torch.cat([self.lengths, other.lengths])


def new_cache(layers: int) -> DynamicCache:
    """Return an empty cache that keeps every position of every layer.

    Sliding-window layers keep more than they need, so that all layers stay aligned; their mask cuts the window.
    """
    cache = DynamicCache()
    cache.layers.extend(DynamicLayer() for _ in range(layers))
    return cache


def _gather(states: Tensor, rows: Tensor, source: Tensor) -> Tensor:
    """Map states [P, heads, W, dim], rows [B] and source [B, W] to [B, heads, W, dim]."""
    return states[rows[:, None], :, source].transpose(1, 2).contiguous()


def _pad_left(states: Tensor, width: int) -> Tensor:
    missing = width - states.shape[-2]
    return torch.nn.functional.pad(states, (0, 0, missing, 0)) if missing else states
