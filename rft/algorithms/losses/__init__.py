"""Losses: pure functions of :class:`rft.algorithms.inputs.Tokens`, options by keyword.

How tokens are averaged is decided elsewhere (:mod:`rft.algorithms.aggregation`).
"""

from rft.algorithms.losses.clipping import cispo, clipped, gspo, sapo
from rft.algorithms.losses.offpolicy import opmd, rec, reinforce, topr
from rft.algorithms.losses.preference import dpo, kto
from rft.algorithms.losses.supervised import chord

__all__ = ["chord", "cispo", "clipped", "dpo", "gspo", "kto", "opmd", "rec", "reinforce", "sapo", "topr"]
