"""Sequences that follow each other in one row, each attending to itself only.

Position ids start again at each sequence. Attention gets the sequences' bounds by the names that transformers gives
them (``cu_seq_lens_q`` …) and runs over each sequence apart, so its cost is that of the sequences and not that of the
row squared, and no mask is made. Models whose attention is more than causal (sliding windows) keep transformers' own,
which reads the bounds from the position ids and makes a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ATTENTION = "sdpa_by_sequence"
"""Name of :func:`attend_by_sequence` in transformers' registry."""
AUTO_WASTE = 1.1
"""``packing = "auto"``: pack when padded rows hold so many times the tokens of their sequences. Chosen, not
swept; ``benchmarks/trainer.py`` measures both sides of it."""
_TOLERANCE = 1e-3


def attend_by_sequence(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence of a packed row; of rows that are not packed, as ``sdpa``.

    Args:
        query: [1, H, T, D]; ``key`` and ``value`` [1, H', T, D].
        kwargs: ``cu_seq_lens_q``, int [S + 1]: where the sequences begin, and the row's end.

    Returns:
        [1, T, H, D], and no attention weights.
    """
    bounds = kwargs.pop("cu_seq_lens_q", None)
    for unused in ("cu_seq_lens_k", "max_length_q", "max_length_k"):
        kwargs.pop(unused, None)
    if bounds is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    parts, begin = [], 0
    # Micro-batches are sorted by length: sequences of one length are attended to together.
    for length, run in groupby(torch.diff(bounds).tolist()):
        count = len(list(run))
        end = begin + count * length
        rows = [_rows(states[:, :, begin:end], count, length) for states in (query, key, value)]
        output, _ = sdpa_attention_forward(module, *rows, None, **kwargs)
        parts.append(output.reshape(1, count * length, *output.shape[2:]))
        begin = end
    return torch.cat(parts, dim=1), None


def _rows(states: Tensor, count: int, length: int) -> Tensor:
    """[1, H, count · length, D] → [count, H, length, D]"""
    return states.squeeze(0).unflatten(1, (count, length)).transpose(0, 1)


def packed_arguments(lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
    """What a model must be told beside the ``input_ids`` [1, T] of sequences of these ``lengths``, T in all."""
    bounds = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    longest = max(lengths)
    return {
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None].to(device),
        # On the host: attention reads them there, for each layer.
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def prepare_packing(model: Any) -> bool:
    """Give ``model`` (not wrapped, on any device) an attention for packed rows; whether it keeps sequences apart.

    That is tried: two sequences in one row must give the logits that each gives alone. A model whose layers carry a
    state from token to token fails it.
    """
    config = model.config
    before = config._attn_implementation
    if before == "sdpa" and _only_causal(config):
        model.set_attn_implementation(ATTENTION)
    apart = keeps_apart(model)
    if not apart:
        model.set_attn_implementation(before)
    return apart


@torch.no_grad()
def keeps_apart(model: Any) -> bool:
    """Whether what stands before a sequence in a packed row changes nothing of the model's logits."""
    device, vocabulary = model.device, model.get_input_embeddings().num_embeddings
    tokens = (torch.arange(12, device=device) * 7 + 3) % vocabulary
    alone = [model(input_ids=part[None], use_cache=False).logits[0] for part in (tokens[:5], tokens[5:])]
    packed = model(input_ids=tokens[None], use_cache=False, **packed_arguments([5, 7], device)).logits[0]
    gap = (packed - torch.cat(alone)).abs().max()
    return bool(gap <= _TOLERANCE * torch.cat(alone).abs().max())


def _only_causal(config: Any) -> bool:
    """Each layer attends to all tokens before."""
    types = getattr(config, "layer_types", None)
    if types:
        return all(kind == "full_attention" for kind in types)
    return getattr(config, "sliding_window", None) is None


AttentionInterface.register(ATTENTION, attend_by_sequence)
