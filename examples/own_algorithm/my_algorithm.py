"""Quantile-clipped policy gradient: an algorithm that Stream-RFT does not ship, in two functions."""

import numpy as np
import torch

from rft.algorithms.inputs import importance_ratio, needs


def rank_advantage(rewards, groups, *, spread=2.0):
    """Rank within the group instead of the reward, from -spread/2 to spread/2: blind to the reward's scale."""
    advantages = np.zeros_like(rewards)
    for group in np.unique(groups):
        members = groups == group
        own = rewards[members]
        below = (own[:, None] > own[None, :]).sum(axis=1) + 0.5 * (own[:, None] == own[None, :]).sum(axis=1)
        advantages[members] = spread * (below / len(own) - 0.5)
    return advantages


@needs(vanishes=True)  # no gradient where the advantage is 0, so such samples are not computed
def quantile_clipped(tokens, *, share=0.9):
    """The ratio weighs each token's gradient, but no more than the sequence's ``share`` quantile of ratios does."""
    ratio = importance_ratio(tokens.logprobs.detach(), tokens.old)
    caps = [torch.quantile(ratio[tokens.sequences == s], share) for s in range(len(tokens.rewards))]
    weight = torch.minimum(ratio, tokens.spread(torch.stack(caps)))
    return -weight * tokens.advantages * tokens.logprobs
