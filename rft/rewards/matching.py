"""Rewards a response for matching the reference answer, for its form and for its length."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from rft.errors import RewardError

_MINUS = "\N{MINUS SIGN}"
_SEPARATORS = ",\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"
_UNSIGNED = rf"(?:(?:\d{{1,3}}(?:[{_SEPARATORS}]\d{{3}})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{{1,3}})?"
_NUMBER = re.compile(rf"((?:(?<![\d.])[-+])?{_UNSIGNED})((?: ?/ ?{_UNSIGNED})*)( ?%)?", re.ASCII)
_REMOVE_SEPARATORS = str.maketrans("", "", _SEPARATORS)


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

    Numbers may have a sign (``-`` or U+2212), thousands set apart by commas or narrow blanks, a decimal point, an
    exponent (``1e3``), and may be fractions (``1/2``) or percentages (``50 %``). ``tolerance`` is relative to the
    answer, and absolute near zero.

    It cannot tell apart: ``50 %``, ``50`` and ``0.5``, if only one side has the percent sign; a fraction and a ratio or
    a score (``3/4``); a decimal comma and thousands (``1,234`` is 1234); a number and one with a unit. ``math_verify``
    knows mathematical notation.

    Raises RewardError if the answer holds no number.
    """
    expected = _last_number(reference(answer, "numeric_match"))
    if expected is None:
        raise RewardError(f"numeric_match needs a number as answer, found {answer!r}")
    given = _last_number(response)
    if given is None:
        return 0.0
    readings = {Decimal(1)} if given.percent == expected.percent else {Decimal(1), Decimal("0.01")}
    for factor in readings:
        left = given.value * (factor if given.percent else 1)
        right = expected.value * (factor if expected.percent else 1)
        if abs(left - right) <= Decimal(str(tolerance)) * max(abs(right), Decimal(1)):
            return 1.0
    return 0.0


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


class _Number(NamedTuple):
    value: Decimal
    """As written: 50 for ``50 %``."""
    percent: bool


def _last_number(text: str) -> _Number | None:
    found = _NUMBER.findall(text.replace(_MINUS, "-"))
    if not found:
        return None
    first, rest, percent = found[-1]
    numbers = [Decimal(part.strip().translate(_REMOVE_SEPARATORS)) for part in [first, *rest.split("/")[1:]]]
    if len(numbers) != 2:  # three are a date
        return _Number(numbers[-1], bool(percent))
    return _Number(numbers[0] / numbers[1], bool(percent)) if numbers[1] else None
