"""Reads what a judge answers. Pure.

Models wrap JSON in prose, code fences or thoughts. The last JSON object with the wanted key counts: a model may quote
the form, or the response it judges, before it decides.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from rft.errors import RewardError

MAX_ANSWER_CHARS = 200_000
MAX_OBJECTS = 200
"""Braces at which an object is looked for, from the end."""
SHOWN_CHARS = 200
MAX_REASON_CHARS = 2000


def read_score(answer: str, lowest: float, highest: float) -> tuple[float, str]:
    """Return the score, scaled from ``lowest`` .. ``highest`` to 0 .. 1, and the reason.

    Raises RewardError if there is none, or it is outside the scale.
    """
    found = _find(answer, "score")
    score = _number(found["score"])
    if not math.isfinite(score):
        raise _unreadable(answer, "its score is not a number")
    if not lowest <= score <= highest:
        raise _unreadable(answer, f"its score {score:g} is not from {lowest:g} to {highest:g}")
    return (score - lowest) / (highest - lowest), _reason(found)


def read_ranking(answer: str, count: int) -> tuple[list[int], str]:
    """Return the numbers of the responses from best to worst, from 0, and the reason.

    Raises RewardError unless each occurs once.
    """
    found = _find(answer, "ranking")
    ranking = found["ranking"]
    if not isinstance(ranking, list) or not all(isinstance(one, int) and not isinstance(one, bool) for one in ranking):
        raise _unreadable(answer, "its ranking is not a list of whole numbers")
    if sorted(ranking) != list(range(1, count + 1)):
        raise _unreadable(answer, f"its ranking does not hold each number from 1 to {count} once")
    return [number - 1 for number in ranking], _reason(found)


def read_better(answer: str) -> tuple[int, str]:
    """Return 1 or 2 for the better response, 0 for neither, and the reason. Raises RewardError for anything else."""
    found = _find(answer, "better")
    better = found["better"]
    if isinstance(better, str) and better.strip() in ("0", "1", "2"):
        better = int(better)
    if isinstance(better, bool) or better not in (0, 1, 2):
        raise _unreadable(answer, "its choice is not 0, 1 or 2")
    return int(better), _reason(found)


def _find(answer: str, key: str) -> dict[str, Any]:
    """Return the last JSON object that has ``key``."""
    text = answer[-MAX_ANSWER_CHARS:]
    for start in _braces(text):
        try:
            found, _ = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and key in found:
            return found
    raise _unreadable(answer, f'it holds no JSON object with "{key}"')


def _number(value: object) -> float:
    """Return a number, or one that a text spells; NaN if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _braces(text: str) -> Iterator[int]:
    """Yield where objects may begin, from the end."""
    at = len(text)
    for _ in range(MAX_OBJECTS):
        at = text.rfind("{", 0, at)
        if at < 0:
            return
        yield at


def _reason(found: dict[str, Any]) -> str:
    reason = found.get("reason", "")
    return reason[:MAX_REASON_CHARS] if isinstance(reason, str) else ""


def _unreadable(answer: str, cause: str) -> RewardError:
    shown = answer[-SHOWN_CHARS:]
    return RewardError(f"the judge's answer cannot be used: {cause}. It ends with {shown!r}")
