"""Reward functions: shipped ones by name, one's own as ``package.module:function``."""

from rft.rewards.scorer import Scorer, make_scorer

__all__ = ["Scorer", "make_scorer"]
