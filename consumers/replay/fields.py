"""The fields of one selected event: what a filter can name and what a file holds. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from schemas.events import NOT_WRITTEN, Experience, ScoredExperience

ARRAYS = ("tokens", "action_mask", "logprobs", "versions")
"""Fields with one element a token."""
MAPPINGS = ("rewards", "metadata")
"""Fields whose parts a filter names with a dot: ``rewards.exact_match``, ``metadata.word``."""


@dataclass(frozen=True, slots=True, eq=False)
class Picked:
    """One event of ``ready``, as it is to be used."""

    partition: int
    offset: int
    timestamp_ms: int
    """Of the event in the log."""
    scored: ScoredExperience
    """With the reward and verdict to use: those recorded, or newer ones."""
    recorded_reward: float
    """The reward that the log holds."""

    @property
    def place(self) -> tuple[int, int]:
        """(partition, offset) in ``ready``."""
        return self.partition, self.offset


Getter = Callable[[Picked], Any]


def _of_event(name: str) -> Getter:
    return lambda picked: getattr(picked, name)


def _of_scored(name: str) -> Getter:
    return lambda picked: getattr(picked.scored, name)


def _of_experience(name: str) -> Getter:
    return lambda picked: getattr(picked.scored.experience, name)


def newest_version(experience: Experience) -> int:
    """Highest weight version among the tokens that the policy wrote; -1 when it wrote none."""
    written = experience.versions[experience.action_mask == 1]
    return int(written.max()) if written.size else NOT_WRITTEN


# The producer's own reward would hide the combined one.
RENAMED = {"reward": "given_reward"}
"""Fields of an Experience that have another name here."""

ROW: Mapping[str, Getter] = {
    **{name: _of_event(name) for name in ("partition", "offset", "timestamp_ms")},
    **{RENAMED.get(f.name, f.name): _of_experience(f.name) for f in fields(Experience)},
    **{f.name: _of_scored(f.name) for f in fields(ScoredExperience) if f.name != "experience"},
    "recorded_reward": _of_event("recorded_reward"),
}
"""What a file holds of an event, by column."""

FILTERABLE: Mapping[str, Getter] = {
    **{name: getter for name, getter in ROW.items() if name not in (*ARRAYS, *MAPPINGS)},
    "oldest_version": lambda picked: picked.scored.experience.oldest_version,
    "newest_version": lambda picked: newest_version(picked.scored.experience),
    "total_tokens": lambda picked: int(picked.scored.experience.tokens.size),
    "written_tokens": lambda picked: int(np.count_nonzero(picked.scored.experience.action_mask)),
}
"""What a filter can name, beside the parts of :data:`MAPPINGS`."""


def part(picked: Picked, path: tuple[str, ...]) -> Any:
    """A value below ``rewards`` or ``metadata``; None where there is none."""
    value: Any = picked.scored.rewards if path[0] == "rewards" else _metadata(picked.scored.experience)
    for name in path[1:]:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def row(picked: Picked) -> dict[str, Any]:
    """The event as plain values, arrays as NumPy's."""
    return {name: getter(picked) for name, getter in ROW.items()}


def _metadata(experience: Experience) -> Any:
    try:
        return json.loads(experience.metadata)
    except (ValueError, RecursionError):
        return None
