"""One experience as a trainer holds it: what learning needs, and where it stands in the log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schemas.events import NOT_WRITTEN, LogprobArray, MaskArray, ScoredExperience, TokenArray

OVERHEAD_BYTES = 1024
"""Python objects around one sample's arrays (measured with tracemalloc: 0.8 to 1.1 KiB)."""


@dataclass(frozen=True, slots=True, eq=False)
class Payload:
    """The arrays of one sample, each [T], prompt included; see :class:`schemas.events.Experience`."""

    tokens: TokenArray
    action_mask: MaskArray
    logprobs: LogprobArray
    versions: TokenArray

    @property
    def size_bytes(self) -> int:
        """Memory that the arrays and their objects take."""
        return self.tokens.nbytes * 3 + self.action_mask.nbytes + OVERHEAD_BYTES


@dataclass(slots=True, eq=False)
class Sample:
    """One ``ready`` event. ``payload`` is None while only the pointer to it is kept."""

    partition: int
    offset: int
    experience_id: str
    group_id: str
    number: int
    release_id: str
    release_size: int
    filtered: bool
    """The processor, or this trainer, will not have it trained."""
    reward: float
    priority: float
    temperature: float
    oldest_version: int
    """Of the tokens that this trainer's own model wrote; -1 if it wrote none."""
    payload: Payload | None
    top_p: float = 1.0
    kind: str = "rollout"
    """``rollout``, ``demonstration`` or ``preference``."""
    uses: int = 0
    """Times that it was trained."""
    truncated: bool = False
    """Cut at the token limit."""

    @property
    def place(self) -> tuple[int, int]:
        """(partition, offset) in ``ready``."""
        return self.partition, self.offset


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a trainer can use."""

    vocabulary: int
    """Token ids that its model knows."""
    model: str
    """Its identity; the versions of tokens that another model wrote mean nothing to it."""
    min_reward: float | None = None
    """Lowest reward of what it trains."""
    kinds: frozenset[str] | None = None
    """Learning signals (``Experience.kind``) that its algorithm can use; None: all."""

    def usable(self, scored: ScoredExperience) -> bool:
        """Whether to train this: the policy wrote something after the first token, and all token ids are known."""
        experience = scored.experience
        return (
            scored.verdict == "train"
            and (self.kinds is None or experience.kind in self.kinds)
            and (self.min_reward is None or scored.reward >= self.min_reward)
            and _trainable(experience.tokens, experience.action_mask, self.vocabulary)
        )


def read_sample(partition: int, offset: int, scored: ScoredExperience, wanted: Wanted) -> Sample:
    """The part of an event that training needs. What is not ``wanted`` counts as filtered."""
    experience = scored.experience
    usable = wanted.usable(scored)
    return Sample(
        partition=partition,
        offset=offset,
        experience_id=experience.experience_id,
        group_id=experience.group_id,
        number=experience.number,
        release_id=scored.release_id,
        release_size=scored.release_size,
        filtered=not usable,
        reward=scored.reward,
        priority=scored.priority,
        temperature=experience.temperature,
        oldest_version=experience.oldest_version if experience.model == wanted.model else NOT_WRITTEN,
        payload=read_payload(scored, wanted) if usable else None,
        top_p=experience.top_p,
        kind=experience.kind,
        truncated=experience.finish_reason == "length",
    )


def read_payload(scored: ScoredExperience, wanted: Wanted) -> Payload:
    """An event's arrays."""
    experience = scored.experience
    versions = experience.versions
    if experience.model != wanted.model:
        versions = np.full_like(versions, NOT_WRITTEN)
    return Payload(experience.tokens, experience.action_mask, experience.logprobs, versions)


def _trainable(tokens: TokenArray, action_mask: MaskArray, vocabulary: int) -> bool:
    # The first token has nothing before it that could predict it.
    return bool(action_mask[1:].any()) and bool(tokens.min() >= 0) and bool(np.max(tokens) < vocabulary)
