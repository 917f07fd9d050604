"""Writes and reads what a gateway and an explorer say to each other: JSON with packed arrays. Pure.

Arrays are base64 of little-endian int32 or float32. A request that fails is answered with ``{"message"}`` and a status:
429 if too much is under way, another 4xx if no explorer can serve the request, 5xx if another one may.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rft.errors import PolicyError, RequestError
from rft.policy.base import Generation, Sampling

PATH = "/rft/generate"
MAX_BODY_BYTES = 64 * 1024 * 1024
"""More than the base64 of 2**23 tokens; no model has such a context."""
MAX_TOKENS = 2**24
MAX_SEED = 2**63
FINISH_REASONS = ("stop", "length")


def write_request(prompt: Sequence[int], sampling: Sampling) -> dict[str, Any]:
    """Return the body that asks to continue ``prompt``."""
    return {
        "prompt": _pack(np.asarray(prompt, "<i4")),
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop": list(sampling.stop),
    }


def read_request(values: Mapping[str, Any]) -> tuple[list[int], Sampling]:
    """Return prompt and sampling of a body. Raises RequestError that names the field at fault.

    What depends on the model is checked by its policy.
    """
    stop = values.get("stop")
    if not isinstance(stop, list) or not all(isinstance(text, str) for text in stop):
        raise RequestError("stop: must be a list of texts")
    sampling = Sampling(
        max_tokens=_whole(values, "max_tokens", MAX_TOKENS),
        temperature=_number(values, "temperature"),
        top_p=_number(values, "top_p"),
        seed=_whole(values, "seed", MAX_SEED),
        stop=tuple(stop),
    )
    try:
        return _unpack(values.get("prompt"), "<i4").tolist(), sampling
    except ValueError as error:
        raise RequestError(f"prompt: {error}") from error


def write_generation(generation: Generation) -> dict[str, Any]:
    """Return the answer to a request."""
    return {
        "tokens": _pack(generation.tokens.astype("<i4")),
        "logprobs": _pack(generation.logprobs.astype("<f4")),
        "versions": _pack(generation.versions.astype("<i4")),
        "finish_reason": generation.finish_reason,
    }


def read_generation(values: Mapping[str, Any], sampling: Sampling) -> Generation:
    """Return the generation in an answer. Raises PolicyError if it is none, or not one of this request."""
    try:
        tokens = _unpack(values.get("tokens"), "<i4").astype(np.int32)
        logprobs = _unpack(values.get("logprobs"), "<f4").astype(np.float32)
        versions = _unpack(values.get("versions"), "<i4").astype(np.int32)
    except ValueError as error:
        raise PolicyError(f"an explorer's answer has an array that {error}") from error
    reason = values.get("finish_reason")
    if not 0 < len(tokens) <= sampling.max_tokens or not len(tokens) == len(logprobs) == len(versions):
        raise PolicyError(
            f"an explorer answered with {len(tokens)} tokens, {len(logprobs)} logprobs and {len(versions)} versions, "
            f"asked for at most {sampling.max_tokens} tokens"
        )
    if reason not in FINISH_REASONS or not np.isfinite(logprobs).all() or tokens.min() < 0 or versions.min() < 0:
        raise PolicyError(f"an explorer's answer cannot be used: it ended with {str(reason)[:40]!r}")
    return Generation(tokens, logprobs, versions, reason)


def _pack(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _unpack(text: object, kind: str) -> npt.NDArray[Any]:
    """Return an array. Raises ValueError, whose text follows the array's name."""
    if not isinstance(text, str):
        raise ValueError("is no text")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is no base64") from error
    if len(content) % 4:
        raise ValueError("is cut off")
    return np.frombuffer(content, kind)


def _whole(values: Mapping[str, Any], name: str, most: int) -> int:
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < most:
        raise RequestError(f"{name}: must be a whole number from 0 and below {most}")
    return value


def _number(values: Mapping[str, Any], name: str) -> float:
    value = values.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise RequestError(f"{name}: must be a number")
    return float(value)
