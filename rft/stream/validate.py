"""Is a decoded experience one that can be learned from at all? What is not is a dead letter, not a filtered member."""

from __future__ import annotations

import json

from rft.errors import DecodeError
from schemas.events import NOT_WRITTEN, Experience

KINDS = ("rollout", "demonstration", "preference")
SPLITS = ("train", "eval")
FINISH_REASONS = ("stop", "length", "error")
MAX_GROUP_SIZE = 65_536
"""Far above any sensible group; a number like this in a malformed event must not decide how much is remembered."""

MAX_LOGPROB = 1e-3
"""Log-probabilities are at most 0; softmax in half precision may round a little above."""


def validate(experience: Experience, key: bytes | None) -> None:
    """Check what the schema cannot say.

    Args:
        key: The event's key, which decides its partition and so must be the group's id: members of a group
            that lie in several partitions would never meet.

    Raises:
        DecodeError: With the field at fault.
    """
    if not experience.group_id:
        raise DecodeError("is empty", field="group_id")
    if key != experience.group_id.encode():
        raise DecodeError(f"{_shown(key)} is not the group_id, {experience.group_id!r}", field="key")
    if not experience.experience_id.startswith(f"{experience.group_id}/"):
        raise DecodeError(
            f"{experience.experience_id!r} does not begin with {experience.group_id + '/'!r}",
            field="experience_id",
        )
    if not 1 <= experience.group_size <= MAX_GROUP_SIZE:
        raise DecodeError(f"is {experience.group_size}, allowed: 1 to {MAX_GROUP_SIZE}", field="group_size")
    _one_of("kind", experience.kind, KINDS)
    _one_of("split", experience.split, SPLITS)
    _one_of("finish_reason", experience.finish_reason, FINISH_REASONS)
    _metadata(experience.metadata)
    _arrays(experience)


def _shown(key: bytes | None) -> str:
    if key is None:
        return "(none)"
    return repr(key[:80].decode("utf-8", "backslashreplace"))


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise DecodeError(f"is {value[:80]!r}, allowed: {', '.join(allowed)}", field=field)


def _metadata(text: str) -> None:
    if text == "{}":
        return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"is not JSON: {error}", field="metadata") from None
    if not isinstance(value, dict):
        raise DecodeError(f"is a JSON {type(value).__name__}, not an object", field="metadata")


def _arrays(experience: Experience) -> None:
    """Lengths, mask values and finiteness are the codec's to check."""
    if not experience.tokens.size:
        return
    written = experience.action_mask == 1
    versions = experience.versions
    if bool((versions[~written] != NOT_WRITTEN).any()):
        raise DecodeError("names a version for a token that no policy wrote", field="versions")
    if experience.kind == "rollout" and bool((versions[written] < 0).any()):
        raise DecodeError("has no version for a token that the policy wrote", field="versions")
    if float(experience.logprobs.max()) > MAX_LOGPROB:
        raise DecodeError("holds a positive log-probability", field="logprobs")
