"""Checks what a workflow returned, before it becomes an experience. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rft.errors import RolloutError
from rft.stream.validate import MAX_LOGPROB
from rft.texts import utf8_fault
from rft.workflows.trajectory import Trajectory
from schemas.events import NOT_WRITTEN

FINISH_REASONS = ("stop", "length")
_KINDS: dict[str, tuple[type[np.generic], str, str]] = {
    "tokens": (np.int32, "iu", "integers"),
    "action_mask": (np.uint8, "iub", "0 and 1"),
    "logprobs": (np.float32, "iuf", "numbers"),
    "versions": (np.int32, "iu", "integers"),
}
"""Of each array: its dtype, the kinds of dtype that convert to it, and what it holds."""


def check_trajectory(returned: object) -> Trajectory:
    """Return a workflow's trajectory, its arrays in the dtypes of :class:`Trajectory`.

    Lists and arrays of other dtypes are converted if no value changes. Raises RolloutError that names the field at
    fault: the explorer counts it as a failure of this try.
    """
    if not isinstance(returned, Trajectory):
        raise RolloutError(f"the workflow returned {_name(returned)}, it must return a Trajectory")
    for field in ("prompt", "response"):
        _check_text(field, getattr(returned, field))
    if returned.finish_reason not in FINISH_REASONS:
        raise _fault("finish_reason", f"is {returned.finish_reason!r}, allowed: {', '.join(FINISH_REASONS)}")
    arrays = {field: _array(field, getattr(returned, field)) for field in _KINDS}
    tokens, mask, logprobs, versions = arrays.values()
    for field, array in arrays.items():
        if array.size != tokens.size:
            raise _fault(field, f"has {array.size} elements, but tokens has {tokens.size}")
    if not tokens.size:
        raise _fault("tokens", "is empty")
    if tokens.min() < 0:
        raise _fault("tokens", f"holds {tokens.min()}; token ids are not negative")
    if mask.max() > 1:
        raise _fault("action_mask", f"holds {mask.max()}; it may hold 0 and 1")
    written = mask == 1
    if not np.isfinite(logprobs).all():
        raise _fault("logprobs", "holds values that are not finite")
    if logprobs.max() > MAX_LOGPROB:
        raise _fault("logprobs", f"holds {logprobs.max():g}; log-probabilities are at most 0")
    if logprobs[~written].any():
        raise _fault("logprobs", "is not 0 for a token that the policy did not write (action_mask 0)")
    if (versions[written] < 0).any():
        raise _fault("versions", "names no weight version for a token that the policy wrote (action_mask 1)")
    if (versions[~written] != NOT_WRITTEN).any():
        raise _fault("versions", f"must be {NOT_WRITTEN} for a token that the policy did not write (action_mask 0)")
    return replace(returned, tokens=tokens, action_mask=mask, logprobs=logprobs, versions=versions)


def _array(field: str, value: object) -> npt.NDArray[Any]:
    dtype, kinds, content = _KINDS[field]
    try:
        given = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise _fault(field, f"is no array: {error}") from error
    if given.ndim != 1:
        raise _fault(field, f"has the shape {list(given.shape)}, it must have one dimension")
    if given.size and given.dtype.kind not in kinds:
        raise _fault(field, f"has the dtype {given.dtype}, it must hold {content}")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = given.astype(dtype)
    if dtype is not np.float32 and not np.array_equal(converted, given):
        raise _fault(field, f"holds values that do not fit {np.dtype(dtype).name}")
    return converted


def _check_text(field: str, value: object) -> None:
    if not isinstance(value, str):
        raise _fault(field, f"is {_name(value)}, it must be a text")
    if fault := utf8_fault(value):
        raise _fault(field, fault)


def _name(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _fault(field: str, problem: str) -> RolloutError:
    return RolloutError(f"the workflow's trajectory is invalid: {field} {problem}")
