"""Rewards for the form of a response, whatever it says."""

from __future__ import annotations

import re


def matches_format(response: str, answer: str | None, *, pattern: str) -> float:
    """1 if the whole response matches the regular expression ``pattern`` (``.`` takes newlines too), else 0."""
    del answer
    return float(re.fullmatch(pattern, response, re.DOTALL) is not None)


def length_penalty(response: str, answer: str | None, *, written_tokens: int, free: int, limit: int) -> float:
    """0 up to ``free`` tokens, then falling in a straight line to -1 at ``limit`` tokens and beyond.

    The soft overlong punishment of DAPO (https://arxiv.org/abs/2503.14476), there with limit = the token limit.
    """
    del response, answer
    if not 0 <= free < limit:
        raise ValueError("needs 0 <= free < limit")
    return -min(max((written_tokens - free) / (limit - free), 0.0), 1.0)
