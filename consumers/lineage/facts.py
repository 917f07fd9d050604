"""Defines the answers of lineage, as plain records. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from schemas.events import NOT_WRITTEN, Experience, ScoredExperience, TrainingStep, WeightVersion


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens that one weight version wrote, from ``start`` to ``end`` (exclusive)."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Copy:
    """One event of an experience: its position, and when it was written (Unix ms)."""

    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Use:
    """Says what one TrainingStep did with an experience."""

    model: str
    kind: str
    step: int
    cause: str
    """Empty when it was trained, else why it was dropped."""
    partition: int
    offset: int
    """Its position in ``ready``."""
    staleness: int
    from_version: int
    """Version of the weights that the step started from."""
    to_version: int
    """Version of the weights after the step."""

    @property
    def trained(self) -> bool:
        return not self.cause


@dataclass(slots=True)
class ExperienceLineage:
    """Follows one experience from its task to the weights that it changed."""

    experience_id: str
    group_id: str
    split: str
    kind: str = ""
    source: str = ""
    model: str = ""
    prompt: str = ""
    response: str = ""
    tokens: int = 0
    spans: list[Span] = field(default_factory=list)
    """The tokens by the version that wrote them."""
    published: list[Copy] = field(default_factory=list)
    ready: list[Copy] = field(default_factory=list)
    dead_letters: list[str] = field(default_factory=list)
    """Error of each dead letter of its events."""
    verdict: str | None = None
    cause: str | None = None
    reward: float | None = None
    rewards: dict[str, float] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """What became of it, in a few words."""
        trained = [use for use in self.uses if use.trained]
        if trained:
            return ", ".join(f"trained by {use.model} in step {use.step}" for use in trained)
        if self.verdict == "filtered":
            return f"filtered: {self.cause}"
        if self.split == "eval" and self.ready:
            return "evaluated"
        if self.uses:
            return f"dropped: {self.uses[0].cause}"
        if self.ready:
            return "buffered"
        if self.dead_letters:
            return f"dead letter: {self.dead_letters[-1]}"
        return "waiting" if self.published else "unknown"

    def describe(self, experience: Experience) -> None:
        """Copy what the event itself says."""
        self.kind, self.source, self.model = experience.kind, experience.source, experience.model
        self.prompt, self.response = experience.prompt, experience.response
        self.tokens = int(experience.tokens.size)
        self.spans = spans(experience)

    def add_verdict(self, scored: ScoredExperience) -> None:
        """Copy the processor's verdict, unless another release already has it for training."""
        if self.verdict != "train":
            self.verdict, self.cause, self.reward = scored.verdict, scored.cause, scored.reward
            self.rewards = dict(scored.rewards)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "outcome": self.outcome}


@dataclass(slots=True)
class StepLineage:
    """One gradient step: the weights before, the events, the weights after."""

    model: str
    step: int
    from_version: int
    to_version: int
    digest: str
    created_at: int
    metrics: dict[str, float]
    experiences: list[ExperienceLineage] = field(default_factory=list)
    """The experiences that it trained, in batch order."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Number of events that it dropped, by cause."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "experiences": [experience.to_json() for experience in self.experiences]}


@dataclass(slots=True)
class WeightsLineage:
    """One weight version: the steps since the version before, and everything that they trained."""

    weights: WeightVersion
    previous: int | None
    """The version before; None for the weights that training started from."""
    steps: list[StepLineage]
    total_steps: int
    """Steps from the initial weights to these."""
    total_experiences: int
    """Distinct experiences that those steps trained."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            # Without bytes: the layout of a transfer says nothing about where the weights come from.
            "weights": {name: value for name, value in asdict(self.weights).items() if not isinstance(value, bytes)},
            "previous": self.previous,
            "steps_in_all": self.total_steps,
            "experiences_in_all": self.total_experiences,
            "steps": [step.to_json() for step in self.steps],
        }


@dataclass(slots=True)
class TaskLineage:
    """One task and all experiences that were made of it."""

    group_id: str
    number: int | None
    split: str | None
    prompt: str | None
    answer: str | None
    issued_at: int | None
    min_version: int | None
    experiences: list[ExperienceLineage]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "experiences": [experience.to_json() for experience in self.experiences]}


def spans(experience: Experience) -> list[Span]:
    """Return runs of tokens by the version that wrote them, without the tokens that no policy wrote."""
    versions = np.where(experience.action_mask == 1, experience.versions, NOT_WRITTEN)
    if not versions.size:
        return []
    starts = [0, *(np.flatnonzero(np.diff(versions)) + 1).tolist()]
    ends = [*starts[1:], int(versions.size)]
    runs = (Span(int(versions[start]), start, end) for start, end in zip(starts, ends, strict=True))
    return [span for span in runs if span.version != NOT_WRITTEN]


def surviving(steps: Iterable[TrainingStep], model: str) -> list[TrainingStep]:
    """Return the gradient steps that led to the model's newest weights, in order; of each the last record."""
    by_number = {step.step: step for step in steps if step.model == model and step.kind == "step"}
    return [by_number[number] for number in sorted(by_number)]
