"""Losses: pure functions of :class:`rft.algorithms.inputs.TokenBatch` with their options as keywords.

Each returns a :class:`rft.algorithms.inputs.TokenLoss`, or by a plugin the losses [N] alone. How tokens are averaged is
decided in :mod:`rft.algorithms.aggregation`.
"""

from rft.algorithms.losses.clipping import cispo, clipped, gmpo, gspo, gspo_token, kl_cov, sapo
from rft.algorithms.losses.offpolicy import chord, luffy, opmd, rec, reinforce, topr
from rft.algorithms.losses.preference import dpo, kto

__all__ = [
    "chord",
    "cispo",
    "clipped",
    "dpo",
    "gmpo",
    "gspo",
    "gspo_token",
    "kl_cov",
    "kto",
    "luffy",
    "opmd",
    "rec",
    "reinforce",
    "sapo",
    "topr",
]
