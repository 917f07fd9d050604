"""Defines a quantile-clipped policy gradient, an algorithm that Stream-RFT does not ship, in two functions."""

import numpy as np
import torch

from rft.algorithms.inputs import importance_ratio, needs


def rank_advantage(rewards, groups, *, spread=2.0):
    """Return the rank within the group, from -spread/2 to spread/2, so that the scale of rewards does not matter."""
    advantages = np.zeros_like(rewards)
    for group in np.unique(groups):
        in_group = groups == group
        own = rewards[in_group]
        below = (own[:, None] > own[None, :]).sum(axis=1) + 0.5 * (own[:, None] == own[None, :]).sum(axis=1)
        advantages[in_group] = spread * (below / len(own) - 0.5)
    return advantages


@needs(vanishes=True)  # no gradient where the advantage is 0, so such samples are skipped
def quantile_clipped(tokens, *, share=0.9):
    """Weight each token's gradient by its ratio, capped at the ``share`` quantile of its sequence's ratios."""
    ratio = importance_ratio(tokens.logprobs.detach(), tokens.old)
    caps = [torch.quantile(ratio[tokens.sequences == s], share) for s in range(len(tokens.rewards))]
    weight = torch.minimum(ratio, tokens.spread(torch.stack(caps)))
    return -weight * tokens.advantages * tokens.logprobs
