"""Packs token-level arrays into little-endian bytes, unpacks them, and checks them in both directions.

The docs of ``avsc/Experience.avsc`` and ``avsc/Turn.avsc`` describe the layout. Unpacked arrays are read-only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import DecodeError, EncodeError
from schemas.events import NOT_WRITTEN, LogprobArray, MaskArray, TokenArray

PACKED = ("tokens", "action_mask", "logprobs", "versions")
"""Fields of Experience with one element a token, in the order of the schema."""

PACKED_TURN = ("prompt_tokens", "tokens", "logprobs", "versions")
"""Packed fields of Turn, in the order of the schema."""

NEGATIVE_TOKEN = "holds a negative token id"
NO_TURN_REWARD = "holds infinity; a reward of a turn is finite, or NaN where none is known"

_I4 = np.dtype("<i4")
_F4 = np.dtype("<f4")
_U1 = np.dtype("u1")


def pack(tokens: TokenArray, action_mask: MaskArray, logprobs: LogprobArray, versions: TokenArray) -> tuple[bytes, ...]:
    """Return the four arrays, each of shape [T], as bytes in the order of :data:`PACKED`. Raises EncodeError."""
    tokens = _exact(tokens, _I4, "tokens")
    action_mask = _exact(action_mask, _U1, "action_mask")
    logprobs = _exact(logprobs, _F4, "logprobs")
    versions = _exact(versions, _I4, "versions")
    _check(tokens, action_mask, logprobs, EncodeError)
    if versions.size != tokens.size:
        raise EncodeError(f"has {versions.size} elements, tokens has {tokens.size}", "versions")
    runs = _runs(versions)
    if min(runs[:, 0].tolist(), default=NOT_WRITTEN) < NOT_WRITTEN:
        raise EncodeError(f"holds a version below {NOT_WRITTEN}", "versions")
    return tokens.tobytes(), action_mask.tobytes(), logprobs.tobytes(), runs.tobytes()


def unpack(
    tokens: bytes, action_mask: bytes, logprobs: bytes, versions: bytes, at: str = ""
) -> tuple[TokenArray, MaskArray, LogprobArray, TokenArray]:
    """Undo :func:`pack`. Errors put ``at`` before field names. Raises DecodeError."""
    token_array = _view(tokens, _I4, at + "tokens")
    mask_array = _view(action_mask, _U1, at + "action_mask")
    logprob_array = _view(logprobs, _F4, at + "logprobs")
    _check(token_array, mask_array, logprob_array, DecodeError, at)
    return token_array, mask_array, logprob_array, _expand(versions, token_array.size, at + "versions")


def pack_turn_rewards(turn_rewards: LogprobArray) -> bytes:
    """Return the rewards by turn, of shape [turns], as bytes. Raises EncodeError."""
    array = _exact(turn_rewards, _F4, "turn_rewards")
    if np.isinf(array).any():
        raise EncodeError(NO_TURN_REWARD, "turn_rewards")
    return array.tobytes()


def unpack_turn_rewards(data: bytes, at: str = "") -> LogprobArray:
    """Undo :func:`pack_turn_rewards`. Errors put ``at`` before the field's name. Raises DecodeError."""
    array = _view(data, _F4, at + "turn_rewards")
    if array.size and np.isinf(array).any():
        raise DecodeError(NO_TURN_REWARD, at + "turn_rewards")
    return array


def pack_turn(
    prompt_tokens: TokenArray, tokens: TokenArray, logprobs: LogprobArray, versions: TokenArray
) -> tuple[bytes, ...]:
    """Return what a turn read, of shape [P], and wrote, three arrays of shape [N], as bytes. Raises EncodeError."""
    read = _exact(prompt_tokens, _I4, "prompt_tokens")
    if read.size and read.min() < 0:
        raise EncodeError(NEGATIVE_TOKEN, "prompt_tokens")
    written, _, *others = pack(tokens, np.ones(np.size(tokens), _U1), logprobs, versions)
    return read.tobytes(), written, *others


def unpack_turn(
    prompt_tokens: bytes, tokens: bytes, logprobs: bytes, versions: bytes, at: str = ""
) -> tuple[TokenArray, TokenArray, LogprobArray, TokenArray]:
    """Undo :func:`pack_turn`. Errors put ``at`` before field names. Raises DecodeError."""
    read = _view(prompt_tokens, _I4, at + "prompt_tokens")
    if read.size and read.min() < 0:
        raise DecodeError(NEGATIVE_TOKEN, at + "prompt_tokens")
    mask = b"\x01" * (len(tokens) // _I4.itemsize)
    written, _, written_logprobs, written_versions = unpack(tokens, mask, logprobs, versions, at)
    return read, written, written_logprobs, written_versions


def _check(
    tokens: TokenArray,
    action_mask: MaskArray,
    logprobs: LogprobArray,
    error: type[DecodeError] | type[EncodeError],
    at: str = "",
) -> None:
    size = tokens.size
    if action_mask.size != size:
        raise error(f"has {action_mask.size} elements, tokens has {size}", at + "action_mask")
    if logprobs.size != size:
        raise error(f"has {logprobs.size} elements, tokens has {size}", at + "logprobs")
    if size and tokens.min() < 0:
        raise error(NEGATIVE_TOKEN, at + "tokens")
    if action_mask.tobytes().translate(None, b"\x00\x01"):
        raise error("holds something other than 0 and 1", at + "action_mask")
    if not np.isfinite(logprobs).all():
        raise error("holds NaN or infinity", at + "logprobs")


def _exact(array: Any, dtype: np.dtype[Any], name: str) -> npt.NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.ndim != 1:
        raise EncodeError("must be a NumPy array of one dimension", name)
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in ("f" if dtype.kind == "f" else "iub"):
        raise EncodeError(f"has dtype {array.dtype}, must be {dtype}", name)
    with np.errstate(over="ignore"):
        narrow = array.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(narrow, array):
        raise EncodeError(f"holds values that {dtype} cannot", name)
    return narrow


def _view(data: bytes, dtype: np.dtype[Any], name: str) -> npt.NDArray[Any]:
    if len(data) % dtype.itemsize:
        raise DecodeError(f"{len(data)} bytes are not a whole number of {dtype.itemsize}-byte elements", name)
    return np.frombuffer(data, dtype)


def _runs(versions: TokenArray) -> npt.NDArray[np.int32]:
    """Return the run lengths, of shape [runs, 2]: version and count."""
    if not versions.size:
        return np.zeros((0, 2), _I4)
    changes = (versions[1:] != versions[:-1]).nonzero()[0]
    runs = np.empty((changes.size + 1, 2), _I4)
    runs[:-1, 0] = versions[changes]
    runs[-1, 0] = versions[-1]
    runs[:-1, 1] = changes + 1
    runs[-1, 1] = versions.size
    runs[1:, 1] -= runs[:-1, 1].copy()
    return runs


def _expand(data: bytes, size: int, name: str) -> TokenArray:
    if len(data) % 8:
        raise DecodeError(f"{len(data)} bytes are not a whole number of (version, count) pairs", name)
    runs = np.frombuffer(data, _I4)
    numbers = runs.tolist()
    counts = numbers[1::2]
    # Before anything is expanded: a count may claim 2**31 tokens.
    if min(counts, default=1) < 1:
        raise DecodeError("a run-length is below 1", name)
    if sum(counts) != size:
        raise DecodeError(f"run-lengths sum to {sum(counts)}, tokens has {size}", name)
    if min(numbers[::2], default=NOT_WRITTEN) < NOT_WRITTEN:
        raise DecodeError(f"holds a version below {NOT_WRITTEN}", name)
    versions = np.repeat(runs[::2], runs[1::2])
    versions.flags.writeable = False
    return versions
