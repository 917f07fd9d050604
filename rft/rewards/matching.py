"""Rewards a response for matching the reference answer, for its form and for its length."""

from __future__ import annotations

import re
from decimal import Decimal

from rft.errors import RewardError

_NUMBER = re.compile(
    r"(?:(?<![\d.])[-+])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII
)


def reference(answer: str | None, function: str) -> str:
    """Return the answer. Raises RewardError if the task has none."""
    if answer is None:
        raise RewardError(f"{function} needs the task's answer, and this task has none")
    return answer


def exact_match(response: str, answer: str | None, *, ignore_case: bool = False) -> float:
    """Return 1 if the response is the answer, apart from surrounding white space, else 0."""
    given, expected = response.strip(), reference(answer, "exact_match").strip()
    if ignore_case:
        given, expected = given.casefold(), expected.casefold()
    return float(given == expected)


def numeric_match(response: str, answer: str | None, *, tolerance: float = 1e-6) -> float:
    """Return 1 if the last number in the response equals the answer's, else 0.

    ``tolerance`` is relative to the answer, and absolute near zero. Commas may separate thousands.
    Raises RewardError if the answer holds no number.
    """
    expected = _last_number(reference(answer, "numeric_match"))
    if expected is None:
        raise RewardError(f"numeric_match needs a number as answer, found {answer!r}")
    given = _last_number(response)
    if given is None:
        return 0.0
    return float(abs(given - expected) <= Decimal(str(tolerance)) * max(abs(expected), Decimal(1)))


def matches_format(response: str, answer: str | None, *, pattern: str) -> float:
    """Return 1 if the whole response matches the regular expression ``pattern``, else 0. ``.`` matches newlines too."""
    del answer
    return float(re.fullmatch(pattern, response, re.DOTALL) is not None)


def length_penalty(response: str, answer: str | None, *, written_tokens: int, free: int, limit: int) -> float:
    """Return 0 up to ``free`` tokens, and then a value that falls linearly to -1 at ``limit`` tokens and stays there.

    This is the soft overlong punishment of DAPO (https://arxiv.org/abs/2503.14476), which has the token limit as limit.
    """
    del response, answer
    if not 0 <= free < limit:
        raise ValueError("needs 0 <= free < limit")
    return -min(max((written_tokens - free) / (limit - free), 0.0), 1.0)


def _last_number(text: str) -> Decimal | None:
    numbers = _NUMBER.findall(text)
    return Decimal(numbers[-1].replace(",", "")) if numbers else None
