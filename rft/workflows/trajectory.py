"""Defines what the policy read and wrote in one rollout, or in one row of it."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.events import LogprobArray, MaskArray, TokenArray


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """The result of one rollout. Arrays have one element a token, prompt included (length T)."""

    prompt: str
    response: str
    tokens: TokenArray
    """int32 [T]"""
    action_mask: MaskArray
    """uint8 [T]: 1 where the policy wrote the token."""
    logprobs: LogprobArray
    """float32 [T]: 0 where ``action_mask`` is 0."""
    versions: TokenArray
    """int32 [T]: -1 where ``action_mask`` is 0."""
    finish_reason: str
    """``stop`` or ``length``."""
    temperature: float | None = None
    """With which all its turns were sampled; None: the task's."""
    top_p: float | None = None
    """With which all its turns were sampled; None: the task's."""
