"""Folds the events of a run's log into a summary for the report. Pure.

Events are counted by ids and log positions, so that redelivered, republished and redone events count once. Dead letters
must be added before experiences: an event that became a dead letter is not counted as an experience.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from consumers.report.measures import TrainerSeconds, add_answer, is_correct, trainer_seconds, without_gradient
from rft.config import MAIN_SET, Config
from rft.evaluation.ids import parse_key
from rft.evaluation.tally import Tally, is_answer
from rft.log.coordinates import LogPosition
from rft.log.dead_letter_index import read_dead_letter, resolution
from rft.log.events import Event
from rft.log.records import CountedRejects, R, read_record
from rft.log.topics import topic_name
from rft.stream.fence import Fence
from schemas.events import Experience, Member, ScoredExperience, TrainingStep, WeightVersion

READ_ORDER = ("dlq", "weights", "steps", "members", "tasks", "experiences", "ready")
"""Entities that the report reads, in the order in which they must be added."""

CLOCK_TOLERANCE_MS = 3_600_000
"""Experiences may be published before the run and after it, but times further outside are those of wrong clocks."""
TRANSFER_PREFIX = "weights_"
"""Prefix of the names of a step's metrics of weight transfers."""


@dataclass(frozen=True, slots=True)
class Step:
    """The figures of one gradient step."""

    number: int
    version: int
    created_at: int
    trained: tuple[str, ...]
    """Experience ids."""
    staleness: npt.NDArray[np.int32]
    """int32 [trained]: in weight versions; −1 where the policy wrote no token."""
    reward_mean: float
    loss: float
    learning_rate: float
    seconds: TrainerSeconds
    weights: Mapping[str, float] = field(default_factory=dict)
    """Metrics of weight transfers."""
    reward_std: float | None = None
    """None if the trainer did not measure it."""
    without_gradient: bool = False
    """Whether it changed nothing."""
    skipped: bool = False
    """Whether it changed nothing because no gradient was finite."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer to a held-out task."""

    prompt: str
    response: str
    answer: str | None
    reward: float
    correct: bool


class RolloutSize(NamedTuple):
    """How large one rollout was."""

    tokens: int
    """Tokens that the policy wrote."""
    duration_ms: int


def rollout_size(experience: Experience) -> RolloutSize:
    """Return the size of the rollout that an experience stands for."""
    return RolloutSize(int(experience.action_mask.sum()), experience.duration_ms)


@dataclass(slots=True)
class RunSummary:
    """Everything that the report needs from the log."""

    experience_ids: set[str] = field(default_factory=set)
    experience_events: int = 0
    duplicates: int = 0
    """Events with an id that an earlier event has."""
    dead_letters: dict[str, set[LogPosition]] = field(default_factory=dict)
    """Original positions of dead letters, by the topic that they were read from."""
    dead_letter_classes: Counter[str] = field(default_factory=Counter)
    """Number of dead letters by class of their error."""
    ready_ids: set[str] = field(default_factory=set)
    filtered: dict[str, str] = field(default_factory=dict)
    """Cause by experience id."""
    sizes: dict[str, RolloutSize] = field(default_factory=dict)
    """By id of the experience, for those that are not held out."""
    spare_sizes: dict[str, RolloutSize] = field(default_factory=dict)
    """By id of each experience that was published, for groups with spare rollouts."""
    evaluated_ids: set[str] = field(default_factory=set)
    steps: dict[int, Step] = field(default_factory=dict)
    other_trainers: dict[str, dict[int, Step]] = field(default_factory=dict)
    """Steps of the other trainers on this log, by identity."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Cause by experience id, for experiences that the trainer did not use."""
    rollouts: dict[int, dict[str, Rollout]] = field(default_factory=dict)
    """First answers to the tasks of the first held-out set, by version and group id."""
    evaluations: dict[str, dict[int, Tally]] = field(default_factory=dict)
    """All held-out answers, by set and version."""
    members: dict[tuple[str, str], Member] = field(default_factory=dict)
    """Newest event of each process of each explorer, by member id and address."""
    published_at: list[int] = field(default_factory=list)
    """Times (Unix ms) of the distinct experiences."""
    complete: bool = True
    """Whether the whole log was read; otherwise the counts cover only its beginning."""
    announced_versions: set[int] = field(default_factory=set)
    final_version: int | None = None
    unreadable: Counter[str] = field(default_factory=Counter)
    """Events that are no records of their topics, by entity."""
    first_ms: int | None = None
    """When the first event was written that a role of ours wrote."""
    last_ms: int | None = None

    @property
    def possible_times(self) -> list[int]:
        """Those of ``published_at`` that are not far outside of the run: producers' clocks may be wrong."""
        first, last = (self.first_ms or 0) - CLOCK_TOLERANCE_MS, (self.last_ms or 0) + CLOCK_TOLERANCE_MS
        return [at for at in self.published_at if first <= at <= last]


class RunReducer:
    """Adds events to a :class:`RunSummary`."""

    def __init__(self, config: Config, function: str) -> None:
        """``function`` is the reward function that decides whether a held-out answer is correct."""
        self.summary = RunSummary()
        self._model = config.trainer.model_key
        self._function = function
        self._sample_set = next(iter(config.eval_sets), MAIN_SET)
        self._has_spare = config.rollout.spare > 0
        self._fence = Fence()
        self._rejects = CountedRejects()
        self.summary.unreadable = self._rejects.counts
        self._experiences = topic_name(config, "experiences")
        self._handlers = {
            "dlq": self._add_dead_letter,
            "weights": self._add_weights,
            "steps": self._add_step,
            "members": self._add_member,
            "experiences": self._add_experience,
            "ready": self._add_ready,
        }

    def stop_early(self) -> RunSummary:
        """Return the summary of the events added so far, marked as incomplete."""
        self.summary.complete = False
        return self.summary

    def add_all(self, events: Iterable[Event]) -> None:
        """Add ``events`` in order, see ``add``."""
        for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        """Add one event. An event that is no record of its topic is counted as such, and only its time counts."""
        summary = self.summary
        if summary.first_ms is None or summary.last_ms is None:
            summary.first_ms = summary.last_ms = event.timestamp_ms
        elif event.entity != "experiences":  # anyone publishes those, with any clock
            summary.first_ms = min(summary.first_ms, event.timestamp_ms)
            summary.last_ms = max(summary.last_ms, event.timestamp_ms)
        handler = self._handlers.get(event.entity)
        if handler is not None:
            handler(event)

    def _add_dead_letter(self, event: Event) -> None:
        if resolution(event.headers) is not None:
            return
        letter = read_dead_letter(event)
        position = LogPosition(letter.partition, letter.offset)
        positions = self.summary.dead_letters.setdefault(letter.topic, set())
        if position not in positions:
            positions.add(position)
            self.summary.dead_letter_classes[letter.error or "unknown"] += 1

    def _add_weights(self, event: Event) -> None:
        record = self._read(event, WeightVersion)
        if record is not None and record.model == self._model:
            self.summary.announced_versions.add(record.version)
            if record.final:
                self.summary.final_version = record.version

    def _add_step(self, event: Event) -> None:
        record = self._read(event, TrainingStep)
        if record is None or not self._fence.counts(record):
            return
        own = record.model == self._model
        for ref in record.dropped if own else ():
            self.summary.dropped[ref.experience_id] = ref.cause
        if record.kind != "step":
            return
        steps = self.summary.steps if own else self.summary.other_trainers.setdefault(record.model, {})
        # A later record of the same step replaces the earlier one: the newest weights descend from the later.
        steps[record.step] = Step(
            number=record.step,
            version=record.version,
            created_at=record.created_at,
            trained=tuple(ref.experience_id for ref in record.trained),
            staleness=np.array([ref.staleness for ref in record.trained], dtype=np.int32),
            reward_mean=record.metrics.get("reward_mean", 0.0),
            loss=record.metrics.get("loss", 0.0),
            learning_rate=record.metrics.get("learning_rate", 0.0),
            seconds=trainer_seconds(record.metrics),
            weights={name: value for name, value in record.metrics.items() if name.startswith(TRANSFER_PREFIX)},
            reward_std=record.metrics.get("reward_std"),
            without_gradient=without_gradient(record.metrics),
            skipped=record.metrics.get("skipped", 0.0) >= 1.0,
        )

    def _add_member(self, event: Event) -> None:
        record = self._read(event, Member)
        if record is not None and record.role == "explorer":
            self.summary.members[record.member_id, record.address] = record

    def _add_experience(self, event: Event) -> None:
        summary = self.summary
        summary.experience_events += 1
        if LogPosition(event.partition, event.offset) in summary.dead_letters.get(self._experiences, ()):
            return
        header = next((value for name, value in event.headers if name == "ce_id" and value), None)
        if header is None:
            record = self._read(event, Experience)
            if record is None:
                return
            experience_id = record.experience_id
        else:
            experience_id = header.decode("utf-8", "replace")
        if experience_id in summary.experience_ids:
            summary.duplicates += 1
            return
        if self._has_spare:
            record = self._read(event, Experience)
            if record is not None and record.spare:
                summary.spare_sizes[experience_id] = rollout_size(record)
        summary.experience_ids.add(experience_id)
        summary.published_at.append(event.timestamp_ms)

    def _add_ready(self, event: Event) -> None:
        record = self._read(event, ScoredExperience)
        if record is None:
            return
        summary, experience = self.summary, record.experience
        summary.ready_ids.add(experience.experience_id)
        group = parse_key(event.key)
        if group is not None:
            summary.evaluated_ids.add(experience.experience_id)
            tally = summary.evaluations.setdefault(group.set_name, {}).setdefault(group.version, Tally())
            add_answer(tally, group.number, record, self._function)
            if group.set_name == self._sample_set and experience.sample == 0 and is_answer(record):
                summary.rollouts.setdefault(group.version, {})[experience.group_id] = Rollout(
                    prompt=experience.prompt,
                    response=experience.response,
                    answer=experience.answer,
                    reward=record.reward,
                    correct=is_correct(record, self._function),
                )
            return
        summary.sizes[experience.experience_id] = rollout_size(experience)
        if record.verdict == "filtered":
            summary.filtered[experience.experience_id] = record.cause or "unknown"

    def _read(self, event: Event, kind: type[R]) -> R | None:
        return read_record(event, kind, self._rejects.reject, keyed=False)
