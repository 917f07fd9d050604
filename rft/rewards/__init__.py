"""Reward functions: shipped ones by name, the user's own as ``package.module:function``."""

from rft.rewards.scorer import Scorer, make_scorer

__all__ = ["Scorer", "make_scorer"]
