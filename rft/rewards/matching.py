"""Rewards that compare the response with the reference answer."""

from __future__ import annotations

import re
from decimal import Decimal

from rft.errors import RewardError

_NUMBER = re.compile(
    r"(?:(?<![\d.])[-+])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII
)


def reference(answer: str | None, function: str) -> str:
    """The answer. Raises RewardError if the task has none."""
    if answer is None:
        raise RewardError(f"{function} needs the task's answer, and this task has none")
    return answer


def exact_match(response: str, answer: str | None, *, ignore_case: bool = False) -> float:
    """1 if the response is the answer, surrounding white space aside, else 0."""
    given, expected = response.strip(), reference(answer, "exact_match").strip()
    if ignore_case:
        given, expected = given.casefold(), expected.casefold()
    return float(given == expected)


def numeric_match(response: str, answer: str | None, *, tolerance: float = 1e-6) -> float:
    """1 if the last number in the response equals the answer's, else 0.

    ``tolerance`` is relative to the answer, absolute near zero. Commas between thousands are understood.
    Raises RewardError if the answer holds no number.
    """
    expected = _last_number(reference(answer, "numeric_match"))
    if expected is None:
        raise RewardError(f"numeric_match needs a number as answer, found {answer!r}")
    given = _last_number(response)
    if given is None:
        return 0.0
    return float(abs(given - expected) <= Decimal(str(tolerance)) * max(abs(expected), Decimal(1)))


def _last_number(text: str) -> Decimal | None:
    numbers = _NUMBER.findall(text)
    return Decimal(numbers[-1].replace(",", "")) if numbers else None
