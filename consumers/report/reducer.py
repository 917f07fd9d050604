"""Folds a run's log into what the report tells. Pure: events in, numbers kept.

Counting goes by ids and positions, never by how often something was seen, so that redelivered, republished and
redone events count once. Dead letters must be fed before experiences: what became one is no experience.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from consumers.report.measures import TrainerSeconds, is_correct, trainer_seconds
from rft.config import MAIN_SET, Config
from rft.errors import DecodeError
from rft.evaluation.ids import parse_key
from rft.evaluation.tally import Tally
from rft.log.dead_letter_index import resolution
from rft.log.events import Event
from rft.log.topics import topic_name
from rft.stream.fence import Fence
from schemas.events import Experience, Member, ScoredExperience, TrainingStep, WeightVersion

ORDER = ("dlq", "weights", "steps", "members", "tasks", "experiences", "ready")
"""Entities that the report reads, in the order in which they must be fed."""

TRANSFER = "weights_"
"""Begins the names of a step's metrics of transfers; :meth:`consumers.trainer.distributor.Distributor.take_metrics`."""

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Step:
    """What is kept of one gradient step."""

    number: int
    version: int
    created_at: int
    trained: tuple[str, ...]
    """Experience ids."""
    staleness: npt.NDArray[np.int32]
    """[trained], −1 where the policy wrote no token."""
    reward_mean: float
    loss: float
    seconds: TrainerSeconds
    weights: Mapping[str, float] = field(default_factory=dict)
    """Metrics of transfers of weights."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One held-out answer."""

    prompt: str
    response: str
    answer: str | None
    reward: float
    correct: bool


@dataclass(slots=True)
class Story:
    """All that the report needs, as found in the log."""

    experience_ids: set[str] = field(default_factory=set)
    experience_events: int = 0
    duplicates: int = 0
    """Further events with an id that was seen before."""
    dead: dict[str, set[Position]] = field(default_factory=dict)
    """Positions of dead letters, by the topic they were read from."""
    dead_causes: Counter[str] = field(default_factory=Counter)
    ready_ids: set[str] = field(default_factory=set)
    filtered: dict[str, str] = field(default_factory=dict)
    """Cause by experience id."""
    evaluated_ids: set[str] = field(default_factory=set)
    steps: dict[int, Step] = field(default_factory=dict)
    further: dict[str, dict[int, Step]] = field(default_factory=dict)
    """Steps of the other trainers on this log, by identity."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Cause by experience id, of what the trainer did not use."""
    rollouts: dict[int, dict[str, Rollout]] = field(default_factory=dict)
    """First answers to the tasks of the first held-out set, by version and group id."""
    evaluations: dict[str, dict[int, Tally]] = field(default_factory=dict)
    """All held-out answers, by set and version."""
    members: dict[tuple[str, str], Member] = field(default_factory=dict)
    """Newest word of each process of each explorer."""
    published_at: list[int] = field(default_factory=list)
    """Times (Unix ms) of the distinct experiences."""
    complete: bool = True
    """The whole log was read; otherwise counts are those of its beginning."""
    announced: set[int] = field(default_factory=set)
    """Weight versions."""
    final_version: int | None = None
    first_ms: int | None = None
    last_ms: int | None = None


class StoryTeller:
    """The reducer."""

    def __init__(self, config: Config, function: str) -> None:
        self.story = Story()
        self._model = config.trainer.model_key
        self._function = function
        self._shown = next(iter(config.eval_sets), MAIN_SET)
        self._fence = Fence()
        self._experiences = topic_name(config, "experiences")
        self._feeders = {
            "dlq": self._dead_letter,
            "weights": self._weights,
            "steps": self._step,
            "members": self._member,
            "experiences": self._experience,
            "ready": self._ready,
        }

    def feed_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self.feed(event)

    def feed(self, event: Event) -> None:
        """Take in one event; what cannot be decoded tells nothing."""
        story = self.story
        story.first_ms = event.timestamp_ms if story.first_ms is None else min(story.first_ms, event.timestamp_ms)
        story.last_ms = event.timestamp_ms if story.last_ms is None else max(story.last_ms, event.timestamp_ms)
        feeder = self._feeders.get(event.entity)
        if feeder is None:
            return
        try:
            feeder(event)
        except DecodeError:
            return

    def _dead_letter(self, event: Event) -> None:
        if resolution(event.headers) is not None:
            return
        headers = {name: value.decode("utf-8", "replace") for name, value in event.headers if value is not None}
        topic = headers.get("rft.error.topic", "")
        position = int(headers.get("rft.error.partition", -1)), int(headers.get("rft.error.offset", -1))
        seen = self.story.dead.setdefault(topic, set())
        if position not in seen:
            seen.add(position)
            self.story.dead_causes[headers.get("rft.error.class", "unknown")] += 1

    def _weights(self, event: Event) -> None:
        record = event.record()
        if isinstance(record, WeightVersion) and record.model == self._model:
            self.story.announced.add(record.version)
            if record.final:
                self.story.final_version = record.version

    def _step(self, event: Event) -> None:
        record = event.record()
        if not isinstance(record, TrainingStep) or not self._fence.counts(record):
            return
        own = record.model == self._model
        for ref in record.dropped if own else ():
            self.story.dropped[ref.experience_id] = ref.cause
        if record.kind != "step":
            return
        steps = self.story.steps if own else self.story.further.setdefault(record.model, {})
        # A later word on the same step replaces the earlier: the weights that survive came from it.
        steps[record.step] = Step(
            number=record.step,
            version=record.version,
            created_at=record.created_at,
            trained=tuple(ref.experience_id for ref in record.trained),
            staleness=np.array([ref.staleness for ref in record.trained], dtype=np.int32),
            reward_mean=record.metrics.get("reward_mean", 0.0),
            loss=record.metrics.get("loss", 0.0),
            seconds=trainer_seconds(record.metrics),
            weights={name: value for name, value in record.metrics.items() if name.startswith(TRANSFER)},
        )

    def _member(self, event: Event) -> None:
        record = event.record()
        if isinstance(record, Member) and record.role == "explorer":
            self.story.members[record.member_id, record.address] = record

    def _experience(self, event: Event) -> None:
        story = self.story
        story.experience_events += 1
        if (event.partition, event.offset) in story.dead.get(self._experiences, ()):
            return
        experience_id = next((value.decode() for name, value in event.headers if name == "ce_id" and value), None)
        if experience_id is None:
            record = event.record()
            if not isinstance(record, Experience):
                return
            experience_id = record.experience_id
        if experience_id in story.experience_ids:
            story.duplicates += 1
            return
        story.experience_ids.add(experience_id)
        story.published_at.append(event.timestamp_ms)

    def _ready(self, event: Event) -> None:
        record = event.record()
        if not isinstance(record, ScoredExperience):
            return
        story, experience = self.story, record.experience
        story.ready_ids.add(experience.experience_id)
        group = parse_key(event.key)
        if group is not None:
            story.evaluated_ids.add(experience.experience_id)
            right = is_correct(record, self._function)
            story.evaluations.setdefault(group.set_name, {}).setdefault(group.version, Tally()).add(
                group.number,
                experience.experience_id,
                right=right,
                reward=record.reward,
                expected=record.release_size,
                metadata=experience.metadata,
            )
            if group.set_name == self._shown and experience.sample == 0:
                story.rollouts.setdefault(group.version, {})[experience.group_id] = Rollout(
                    prompt=experience.prompt,
                    response=experience.response,
                    answer=experience.answer,
                    reward=record.reward,
                    correct=right,
                )
        elif record.verdict == "filtered":
            story.filtered[experience.experience_id] = record.cause or "unknown"
