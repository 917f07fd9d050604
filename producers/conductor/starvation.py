"""Explains why a run makes no progress: what became of the newest experiences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rft.config import Config
from rft.log.reader import EventReader
from rft.log.records import CountedRejects, read_records
from schemas.events import ScoredExperience

NEWEST = 100
"""Experiences of each partition that are looked at."""


def explain_starvation(config: Config, groups: int) -> str:
    """Return the message for the operator, from the end of ``ready``. Raises BrokerError if it cannot be read."""
    found: list[ScoredExperience] = []
    rejects = CountedRejects()
    with EventReader(config, "conductor-starvation", ["ready"]) as reader:
        begins, ends = reader.begin_offsets(), reader.end_offsets()
        for at, end in ends.items():
            reader.seek(at.entity, at.partition, max(begins[at], end - NEWEST))
        while not reader.caught_up(ends):
            found += read_records(reader.poll(), ScoredExperience, rejects.reject)
    return describe_starvation(groups, [scored for scored in found if scored.experience.split == "train"])


def describe_starvation(groups: int, newest: Iterable[ScoredExperience]) -> str:
    """Say why ``groups`` groups could not be trained, by the causes of the newest experiences (pure)."""
    newest = list(newest)
    causes = Counter(_cause(scored) for scored in newest)
    counts = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
    errors = Counter(scored.experience.error for scored in newest if scored.experience.error)
    example = f" The most frequent error of a rollout: {errors.most_common(1)[0][0]}." if errors else ""
    return (
        f"{groups} groups in a row were retired without one gradient step. Of the newest {len(newest)} experiences: "
        f"{counts or 'none'}.{example} Fix the cause or raise trainer.max_barren_groups."
    )


def _cause(scored: ScoredExperience) -> str:
    return f"filtered as {scored.cause}" if scored.verdict == "filtered" else "fit for training, but too stale"
