"""Computes the log-probabilities of sampled tokens under the distribution that they were sampled from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TokenLogprobs(NamedTuple):
    """Log-probabilities of N tokens."""

    distribution: Tensor
    """float32 [N, V]: log-probabilities of all tokens, after division by the temperature."""
    plain: Tensor
    """float32 [N]: the tokens' log-probabilities in ``distribution``, to compare with other models'."""
    nucleus: Tensor
    """float32 [N]: the tokens' log-probabilities in the nucleus of ``distribution``, to compare with the sampler's."""
    outside_nucleus: Tensor | None
    """bool [N]: the sampler's nucleus held the token, this model's does not. None if no token was sampled by top-p."""


def entropies(distribution: Tensor) -> Tensor:
    """Return the entropy of each row of log-probabilities [N, V], in nats: float32 [N].

    A token of log-probability -inf adds 0 to it, as in the limit, and has no gradient.
    """
    possible = distribution.masked_fill(distribution == -torch.inf, 0.0)
    return -(possible.exp() * possible).sum(dim=-1)


def token_logprobs(logits: Tensor, targets: Tensor, temperatures: Tensor, top_ps: Tensor | None) -> TokenLogprobs:
    """Compute the log-probabilities of ``targets`` under ``logits``.

    A nucleus is the smallest set of tokens whose probabilities sum to ``top_p`` or more. The sampler does not record
    its nucleus, so it is computed again from this model's distribution, and the token is always added to it. With the
    sampler's weights the result is exact. With newer weights it is an approximation for tokens at the edge of the
    nucleus, which ``outside_nucleus`` marks.

    Args:
        logits: float32 [N, V].
        targets: int64 [N].
        temperatures: float32 [N], each above 0.
        top_ps: float32 [N], each in (0, 1]; None: all are 1.
    """
    distribution = torch.log_softmax(logits / temperatures[:, None], dim=-1)
    plain = distribution.gather(-1, targets[:, None]).squeeze(-1)
    if top_ps is None:
        return TokenLogprobs(distribution, plain, plain, None)
    rows = torch.nonzero(top_ps < 1).squeeze(-1)
    log_mass, outside = _nucleus(distribution[rows], targets[rows], top_ps[rows])
    nucleus = plain.index_add(0, rows, -log_mass)
    marked = torch.zeros_like(top_ps, dtype=torch.bool).index_fill(0, rows[outside], True)
    return TokenLogprobs(distribution, plain, nucleus, marked)


def _nucleus(distribution: Tensor, targets: Tensor, top_ps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log of the nucleus's probability [N], and where the target had to be added to it [N]."""
    ordered, order = distribution.detach().sort(dim=-1, descending=True)
    probabilities = ordered.exp()
    beyond = probabilities.cumsum(dim=-1) - probabilities >= top_ps[:, None]
    beyond[:, 0] = False
    excluded = torch.empty_like(beyond).scatter_(-1, order, beyond)
    outside = excluded.gather(-1, targets[:, None]).squeeze(-1)
    excluded = excluded.scatter(-1, targets[:, None], False)
    return torch.logsumexp(distribution.masked_fill(excluded, -torch.inf), dim=-1), outside
