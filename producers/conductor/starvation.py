"""Why a run does not get anywhere: what became of the newest experiences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rft.config import Config
from rft.log.events import EventReader
from schemas.events import ScoredExperience

NEWEST = 100
"""Experiences of each partition that are looked at."""


def explain_starvation(config: Config, groups: int) -> str:
    """The message for the operator, from the end of ``ready``. Raises BrokerError if it cannot be read."""
    found: list[ScoredExperience] = []
    with EventReader(config, "conductor-barren", ["ready"]) as reader:
        begins, ends = reader.begin_offsets(), reader.end_offsets()
        for (entity, partition), end in ends.items():
            reader.seek(entity, partition, max(begins[entity, partition], end - NEWEST))
        while not reader.caught_up(ends):
            found += [event.record(ScoredExperience) for event in reader.poll()]
    return describe(groups, [scored for scored in found if scored.experience.split == "train"])


def describe(groups: int, newest: Iterable[ScoredExperience]) -> str:
    """What to tell of ``groups`` groups that could not be trained, by the causes of the newest experiences (pure)."""
    newest = list(newest)
    causes = Counter(_cause(scored) for scored in newest)
    shares = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
    errors = Counter(scored.experience.error for scored in newest if scored.experience.error)
    example = f" The rollouts' error: {errors.most_common(1)[0][0]}" if errors else ""
    return (
        f"{groups} groups in a row were retired without one gradient step. Of the newest {len(newest)} experiences: "
        f"{shares or 'none'}.{example} Mend the cause, or allow more with trainer.max_barren_groups"
    )


def _cause(scored: ScoredExperience) -> str:
    return f"filtered as {scored.cause}" if scored.verdict == "filtered" else "fit for training, but too stale"
