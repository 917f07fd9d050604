"""One selected event, and its fields: those that a filter can name and those that a file holds. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from rft.log.coordinates import LogPosition
from schemas.events import NOT_WRITTEN, Experience, ScoredExperience

ARRAYS = ("tokens", "action_mask", "logprobs", "versions", "turn_rewards")
"""Fields with one element a token or a turn."""
MAPPINGS = ("rewards", "metadata")
"""Fields whose parts a filter names with a dot: ``rewards.exact_match``, ``metadata.word``."""


@dataclass(frozen=True, slots=True, eq=False)
class SelectedEvent:
    """One event of ``ready``, with the reward that the replay uses."""

    partition: int
    offset: int
    timestamp_ms: int
    """Unix time of the event in the log."""
    scored: ScoredExperience
    """Holds the reward and verdict to use: those recorded, or newer ones."""
    recorded_reward: float
    """The reward that the log holds."""

    @property
    def position(self) -> LogPosition:
        """The event's position in ``ready``."""
        return LogPosition(self.partition, self.offset)


Getter = Callable[[SelectedEvent], Any]


def _event_field(name: str) -> Getter:
    return lambda event: getattr(event, name)


def _scored_field(name: str) -> Getter:
    return lambda event: getattr(event.scored, name)


def _experience_field(name: str) -> Getter:
    return lambda event: getattr(event.scored.experience, name)


def turn_rewards(event: SelectedEvent) -> list[float]:
    """Return the rewards by turn, NaN where none is known."""
    values: list[float] = event.scored.experience.turn_rewards.tolist()
    return values


def newest_version(experience: Experience) -> int:
    """Return the highest weight version among the tokens that the policy wrote; -1 if it wrote none."""
    written = experience.versions[experience.action_mask == 1]
    return int(written.max()) if written.size else NOT_WRITTEN


RENAMED = {"reward": "given_reward", "rewards": "given_rewards"}
"""Fields of an Experience that have another name here: the producer's own rewards would hide the combined ones."""

COLUMNS: Mapping[str, Getter] = {
    **{name: _event_field(name) for name in ("partition", "offset", "timestamp_ms")},
    **{RENAMED.get(f.name, f.name): _experience_field(f.name) for f in fields(Experience)},
    **{f.name: _scored_field(f.name) for f in fields(ScoredExperience) if f.name != "experience"},
    "recorded_reward": _event_field("recorded_reward"),
    # Files of JSON lines hold no NaN.
    "turn_rewards": lambda event: [None if value != value else value for value in turn_rewards(event)],
}
"""The columns of a file of events."""

FILTERABLE: Mapping[str, Getter] = {
    **{name: getter for name, getter in COLUMNS.items() if name not in (*ARRAYS, *MAPPINGS, "given_rewards")},
    "oldest_version": lambda event: event.scored.experience.oldest_version,
    "newest_version": lambda event: newest_version(event.scored.experience),
    "total_tokens": lambda event: int(event.scored.experience.tokens.size),
    "written_tokens": lambda event: int(np.count_nonzero(event.scored.experience.action_mask)),
}
"""The fields that a filter can name, in addition to the parts of :data:`MAPPINGS`."""


def mapping_value(event: SelectedEvent, path: tuple[str, ...]) -> Any:
    """Return the value at ``path`` in ``rewards`` or ``metadata``; None if there is none."""
    value: Any = event.scored.rewards if path[0] == "rewards" else _metadata(event.scored.experience)
    for name in path[1:]:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def event_row(event: SelectedEvent) -> dict[str, Any]:
    """Return the event's plain values by column; arrays are NumPy's."""
    return {name: getter(event) for name, getter in COLUMNS.items()}


def _metadata(experience: Experience) -> Any:
    try:
        return json.loads(experience.metadata)
    except (ValueError, RecursionError):
        return None
