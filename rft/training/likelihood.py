"""Log-probabilities of sampled tokens under the distribution that they were sampled from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Likelihood(NamedTuple):
    """Of N tokens."""

    distribution: Tensor
    """[N, V]: log-probabilities of all tokens, after division by the temperature."""
    plain: Tensor
    """[N]: of the tokens in that distribution: what other models' are compared with."""
    sampled: Tensor
    """[N]: of the tokens in the nucleus of that distribution: what the sampler's are compared with."""
    outside: Tensor | None
    """bool [N]: the sampler's nucleus held the token, this model's does not; None when nothing was sampled by top-p."""


def likelihood(logits: Tensor, targets: Tensor, temperatures: Tensor, top_ps: Tensor | None) -> Likelihood:
    """
    Args:
        logits: float32 [N, V].
        targets: int64 [N].
        temperatures: float32 [N], each above 0.
        top_ps: float32 [N], each in (0, 1]; None: all are 1.

    A nucleus is the smallest set of tokens with at least ``top_p`` probability. The sampler does not record its own, so
    it is made again from this model's distribution, and always holds the token: exact where the weights are the
    sampler's; where they are newer it is an approximation for tokens at the nucleus's edge, which ``outside`` counts.
    """
    distribution = torch.log_softmax(logits / temperatures[:, None], dim=-1)
    plain = distribution.gather(-1, targets[:, None]).squeeze(-1)
    if top_ps is None:
        return Likelihood(distribution, plain, plain, None)
    rows = torch.nonzero(top_ps < 1).squeeze(-1)
    mass, outside = _nucleus(distribution[rows], targets[rows], top_ps[rows])
    sampled = plain.index_add(0, rows, -mass)
    return Likelihood(distribution, plain, sampled, torch.zeros_like(top_ps, dtype=torch.bool).index_fill(
        0, rows[outside], True
    ))  # fmt: skip


def _nucleus(distribution: Tensor, targets: Tensor, top_ps: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the nucleus's probability [N], and where it had to be widened to hold the token [N]."""
    ordered, order = distribution.detach().sort(dim=-1, descending=True)
    probabilities = ordered.exp()
    beyond = probabilities.cumsum(dim=-1) - probabilities >= top_ps[:, None]
    beyond[:, 0] = False
    cut = torch.empty_like(beyond).scatter_(-1, order, beyond)
    outside = cut.gather(-1, targets[:, None]).squeeze(-1)
    cut = cut.scatter(-1, targets[:, None], False)
    return torch.logsumexp(distribution.masked_fill(cut, -torch.inf), dim=-1), outside
