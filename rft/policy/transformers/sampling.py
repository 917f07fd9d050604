"""Draws the next token of every sequence, each with its own temperature, top_p and random number."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_tokens(logits: Tensor, uniforms: Tensor, temperatures: Tensor, top_ps: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one token a row by inverting the cumulative distribution at ``uniforms``.

    A row's result depends on that row alone, so a sequence does not change with the others in its batch.

    Args:
        logits: float32 [B, V].
        uniforms: float32 [B], each in [0, 1).
        temperatures: float32 [B]; 0 is greedy.
        top_ps: float32 [B], each in (0, 1].

    Returns:
        Tokens, int64 [B], and their log-probabilities, float32 [B], under the distribution drawn from (greedy rows:
        under ``softmax(logits)``). Rows whose logits are not finite get a log-probability that is not finite.
    """
    greedy = temperatures == 0
    scale = torch.where(greedy, 1.0, temperatures)
    logprobs = torch.log_softmax(logits / scale[:, None], dim=-1)
    if bool(((top_ps < 1) & ~greedy).any()):
        logprobs = torch.where(greedy[:, None], logprobs, _keep_nucleus(logprobs, top_ps))
    cumulative = logprobs.exp().cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Rounding may raise uniform * total to the total itself, beyond the last token.
    threshold = torch.minimum(uniforms[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
    tokens = torch.where(greedy, logits.argmax(dim=-1), drawn.clamp(max=logits.shape[-1] - 1))
    return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(-1)


def _keep_nucleus(logprobs: Tensor, top_ps: Tensor) -> Tensor:
    """Renormalize log-probabilities [B, V] over each row's nucleus: -inf outside. The likeliest token always stays."""
    ordered, order = logprobs.sort(dim=-1, descending=True)
    before = ordered.exp().cumsum(dim=-1) - ordered.exp()
    outside = before >= top_ps[:, None]
    outside[:, 0] = False
    cut = torch.empty_like(outside).scatter_(-1, order, outside)
    return torch.log_softmax(logprobs.masked_fill(cut, -torch.inf), dim=-1)
