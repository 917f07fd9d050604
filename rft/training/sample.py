"""Defines one experience as a trainer holds it: what learning needs, and its position in the log."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from rft.log.coordinates import LogPosition
from schemas.events import NOT_WRITTEN, LogprobArray, MaskArray, ScoredExperience, TokenArray
from schemas.record import empty_logprobs

OVERHEAD_BYTES = 1024
"""Bytes of the Python objects around one sample's arrays (measured with tracemalloc: 0.8 to 1.1 KiB)."""


@dataclass(frozen=True, slots=True, eq=False)
class Payload:
    """The arrays of one row, each [T] with the prompt included; see :class:`schemas.events.Experience`."""

    tokens: TokenArray
    action_mask: MaskArray
    logprobs: LogprobArray
    versions: TokenArray
    turn_rewards: LogprobArray = field(default_factory=empty_logprobs)
    """float32 [turns of the row], NaN where none is known; empty when none is."""

    @property
    def size_bytes(self) -> int:
        """Memory of the arrays and their objects."""
        return self.tokens.nbytes * 3 + self.action_mask.nbytes + self.turn_rewards.nbytes + OVERHEAD_BYTES


@dataclass(slots=True, eq=False)
class Sample:
    """One ``ready`` event: a sample, or one of its rows. ``payload`` is None while only a pointer to its arrays is
    held."""

    partition: int
    offset: int
    experience_id: str
    group_id: str
    number: int
    """The task's number; -1 if no conductor issued it."""
    release_id: str
    release_size: int
    filtered: bool
    """It is not trained, by the processor's verdict or this trainer's filter."""
    reward: float
    priority: float
    temperature: float
    oldest_version: int
    """Oldest version of the tokens that this trainer's own model wrote; -1 if it wrote none."""
    payload: Payload | None
    top_p: float = 1.0
    kind: str = "rollout"
    """``rollout``, ``demonstration`` or ``preference``."""
    uses: int = 0
    """How often it was trained."""
    truncated: bool = False
    """It was cut at the token limit."""
    row: int = 0
    """Which row of its sample it is."""
    rows: int = 1
    """Rows of its sample."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """Rewards of the sample by name, before weighting."""

    @property
    def sample_id(self) -> str:
        """Names the sample: the same for all its rows."""
        return self.experience_id if self.rows == 1 else self.experience_id.rpartition("/")[0]

    @property
    def is_last_row(self) -> bool:
        """True for one row of each sample."""
        return self.row == self.rows - 1

    @property
    def position(self) -> LogPosition:
        """Its position in ``ready``."""
        return LogPosition(self.partition, self.offset)


@dataclass(frozen=True, slots=True)
class SampleFilter:
    """Decides which experiences a trainer can use."""

    vocabulary: int
    """Number of token ids that its model knows."""
    model: str
    """Identity of its model. The versions of tokens that another model wrote are meaningless to it."""
    min_reward: float | None = None
    """Lowest reward that is trained; None: any."""
    kinds: frozenset[str] | None = None
    """Kinds of experiences (``Experience.kind``) that its algorithm can use; None: all."""

    def accepts(self, scored: ScoredExperience) -> bool:
        """Return whether ``scored`` is trained.

        The policy must have written a token after the first, and all token ids must be known.
        """
        experience = scored.experience
        return (
            scored.verdict == "train"
            and (self.kinds is None or experience.kind in self.kinds)
            and (self.min_reward is None or scored.reward >= self.min_reward)
            and _trainable(experience.tokens, experience.action_mask, self.vocabulary)
        )


def read_sample(partition: int, offset: int, scored: ScoredExperience, sample_filter: SampleFilter) -> Sample:
    """Take from an event what training needs. A sample that ``sample_filter`` does not accept is marked as filtered."""
    experience = scored.experience
    accepted = sample_filter.accepts(scored)
    return Sample(
        partition=partition,
        offset=offset,
        experience_id=experience.experience_id,
        group_id=experience.group_id,
        number=experience.number,
        release_id=scored.release_id,
        release_size=scored.release_size,
        filtered=not accepted,
        reward=scored.reward,
        priority=scored.priority,
        temperature=experience.temperature,
        oldest_version=experience.oldest_version if experience.model == sample_filter.model else NOT_WRITTEN,
        payload=read_payload(scored, sample_filter) if accepted else None,
        top_p=experience.top_p,
        kind=experience.kind,
        truncated=experience.finish_reason == "length",
        row=experience.row,
        rows=experience.rows,
        rewards=scored.rewards,
    )


def in_batch_order(samples: Iterable[Sample]) -> list[Sample]:
    """Return samples in the order of their ids, the rows of each together and in order."""
    return sorted(samples, key=lambda sample: (sample.sample_id, sample.row))


def filter_whole_samples(samples: Collection[Sample]) -> None:
    """Mark all rows of a sample as filtered if one is, and free their arrays: a part of a sample is never trained."""
    filtered = {sample.sample_id for sample in samples if sample.filtered}
    for sample in samples:
        if sample.sample_id in filtered:
            sample.filtered, sample.payload = True, None


def read_payload(scored: ScoredExperience, sample_filter: SampleFilter) -> Payload:
    """Return an event's arrays. Versions of another model's tokens are set to -1."""
    experience = scored.experience
    versions = experience.versions
    if experience.model != sample_filter.model:
        versions = np.full_like(versions, NOT_WRITTEN)
    return Payload(experience.tokens, experience.action_mask, experience.logprobs, versions, experience.turn_rewards)


def _trainable(tokens: TokenArray, action_mask: MaskArray, vocabulary: int) -> bool:
    # No token before the first could predict it.
    return bool(action_mask[1:].any()) and bool(tokens.min() >= 0) and bool(np.max(tokens) < vocabulary)
