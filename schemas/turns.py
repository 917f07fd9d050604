"""Finds the turns in a mask: a turn is a contiguous run of tokens that the policy wrote."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.events import MaskArray


def turn_starts(action_mask: MaskArray) -> npt.NDArray[np.intp]:
    """Return the index of the first token of each turn, of shape [turns], from a mask of shape [T]."""
    written = action_mask == 1
    before = np.concatenate([np.zeros(1, np.bool_), written[:-1]])
    return np.flatnonzero(written & ~before[: written.size])
