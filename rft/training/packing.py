"""Packs sequences one after the other into one row, with attention within each sequence only.

Position ids start at 0 in each sequence. Attention receives the bounds of the sequences under transformers' names
(``cu_seq_lens_q`` …) and runs over each sequence separately. So no mask is built, and the cost is that of the
sequences, not that of the row squared. Models whose attention is more than causal (sliding windows) keep transformers'
own attention, which reads the bounds from the position ids and builds a mask.
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
AUTO_PADDING_RATIO = 1.1
"""With ``packing = "auto"`` a step is packed if padded rows would hold more than this many times the tokens of their
sequences. Chosen, not swept; ``benchmarks/trainer.py`` measures both sides of it."""
_TOLERANCE = 1e-3
"""Largest difference of logits, relative to the largest logit, that :func:`isolates_sequences` takes for rounding."""


def attend_by_sequence(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute causal attention within each sequence of a packed row. Rows that are not packed are left to ``sdpa``.

    Args:
        query: [1, H, T, D]; ``key`` and ``value`` are [1, H', T, D].
        kwargs: ``cu_seq_lens_q``, int [S + 1]: where each sequence begins, and the end of the row.

    Returns:
        [1, T, H, D], and no attention weights.
    """
    bounds = kwargs.pop("cu_seq_lens_q", None)
    for unused in ("cu_seq_lens_k", "max_length_q", "max_length_k"):
        kwargs.pop(unused, None)
    if bounds is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    parts, begin = [], 0
    # Micro-batches are sorted by length, so sequences of equal length are neighbors and share one call.
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
    """Return the arguments that a model needs besides ``input_ids`` [1, T] for sequences of these ``lengths``."""
    bounds = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    longest = max(lengths)
    return {
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None].to(device),
        # On the CPU, because attention reads them there in each layer.
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def enable_packing(model: Any) -> bool:
    """Give ``model`` (not wrapped, on any device) an attention for packed rows, if it can be trained on them.

    Returns whether it can: :func:`isolates_sequences`. If not, its attention is left as it was.
    """
    config = model.config
    before = config._attn_implementation  # transformers has no public reader
    if before == "sdpa" and _only_causal(config):
        model.set_attn_implementation(ATTENTION)
    isolates = isolates_sequences(model)
    if not isolates:
        model.set_attn_implementation(before)
    return isolates


@torch.no_grad()
def isolates_sequences(model: Any) -> bool:
    """Return whether the logits of a sequence in a packed row are those that it gives alone. Runs the model to see.

    Models whose layers carry a state from token to token fail.
    """
    device, vocabulary = model.device, model.get_input_embeddings().num_embeddings
    tokens = (torch.arange(12, device=device) * 7 + 3) % vocabulary
    alone = [model(input_ids=part[None], use_cache=False).logits[0] for part in (tokens[:5], tokens[5:])]
    packed = model(input_ids=tokens[None], use_cache=False, **packed_arguments([5, 7], device)).logits[0]
    difference = (packed - torch.cat(alone)).abs().max()
    return bool(difference <= _TOLERANCE * torch.cat(alone).abs().max())


def _only_causal(config: Any) -> bool:
    """Return whether each layer attends to all tokens before."""
    types = getattr(config, "layer_types", None)
    if types:
        return all(kind == "full_attention" for kind in types)
    return getattr(config, "sliding_window", None) is None


AttentionInterface.register(ATTENTION, attend_by_sequence)
