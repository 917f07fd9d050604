"""Defines what all records of the topics have in common: arrays for token-level fields, and comparison by value."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

TokenArray = npt.NDArray[np.int32]
MaskArray = npt.NDArray[np.uint8]
LogprobArray = npt.NDArray[np.float32]

NOT_WRITTEN = -1
"""Version stamp of a token that no policy wrote: prompt, tool output, demonstration."""


class Record:
    """Base of all records. Records are equal if their values are; arrays are compared element by element."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(
            _same(getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)  # type: ignore[arg-type]
        )

    __hash__ = None  # type: ignore[assignment]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        # NaN stands for "none" in turn_rewards.
        return bool(np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f"))
    return bool(a == b)


def empty_tokens() -> TokenArray:
    return np.zeros(0, dtype=np.int32)


def empty_mask() -> MaskArray:
    return np.zeros(0, dtype=np.uint8)


def empty_logprobs() -> LogprobArray:
    return np.zeros(0, dtype=np.float32)
