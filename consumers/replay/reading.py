"""Takes the selected events from a log, always in the same order.

Without ``steps`` that is the order of :meth:`rft.log.views.LogView.read`: each partition by offset, between partitions
the lowest (timestamp, partition, offset) first. With ``steps`` it is the order in which those steps trained them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from consumers.lineage.facts import surviving
from consumers.replay.errors import ReplayError
from consumers.replay.fields import Picked
from consumers.replay.rewards import Rescorer
from consumers.replay.selection import Once, Range, Selection
from rft.config import Config
from rft.errors import DecodeError, MissingRangeError
from rft.log.events import Event
from rft.log.views import LogView
from rft.stream.fence import that_count
from schemas.events import EventRef, Reward, ScoredExperience, TrainingStep

ENTITY = "ready"
WINDOW = 8192
"""Events of recorded steps that are looked up together and held in memory."""

Progress = Callable[[int, int], None]
"""Told how many events were read, and how many there are to read."""


@dataclass(slots=True)
class Counts:
    """What became of the events that were read."""

    read: int = 0
    unreadable: int = 0
    repeated: int = 0
    """Of experiences that had come already."""
    selected: int = 0


class Reading:
    """One pass over the selected events."""

    def __init__(
        self,
        config: Config,
        view: LogView,
        selection: Selection,
        rescorers: Sequence[Rescorer] = (),
        progress: Progress = lambda done, total: None,
    ) -> None:
        """``rescorers`` are applied one after the other, and the filter sees what they give.

        Raises SelectionError when the selection contradicts itself or the log's partitions.
        """
        self._config = config
        self._view = view
        self.selection = selection
        self._rescorers = rescorers
        self.progress = progress
        self._where = selection.compiled()
        self._begins, self._ends = view.begin_offsets(ENTITY), view.end_offsets(ENTITY)
        self._bounds = selection.bounds(self._begins, self._ends)
        self.counts = Counts()

    def __iter__(self) -> Iterator[Picked]:
        """Raises MissingRangeError, ArchiveError, BrokerError or ReplayError when the log does not hold what is asked.

        SelectionError when the filter meets values that do not go together.
        """
        once = Once()
        for event in self._events():
            self.counts.read += 1
            picked = self._pick(event)
            if picked is None:
                continue
            if not once.is_first(picked):
                self.counts.repeated += 1
            elif self._where is None or self._where(picked):
                self.counts.selected += 1
                yield picked

    def _pick(self, event: Event) -> Picked | None:
        selection = self.selection
        if not selection.in_time(event.timestamp_ms):
            return None
        try:
            scored = event.record(ScoredExperience)
        except DecodeError:
            self.counts.unreadable += 1
            return None
        if not selection.by_versions(scored.experience):
            return None
        recorded = scored.reward
        for rescore in self._rescorers:
            scored = rescore(scored)
        return Picked(event.partition, event.offset, event.timestamp_ms, scored, recorded)

    def _events(self) -> Iterator[Event]:
        if self.selection.steps is not None:
            refs = trained_by(self._view, self._config.trainer.model_key, self.selection.steps)
            yield from self._named([ref for ref in refs if self.selection.in_offsets((ref.partition, ref.offset))])
            return
        starts, stops = self._bounds
        total = sum(stops[partition] - starts[partition] for partition in starts)
        for done, event in enumerate(self._view.read(ENTITY, start=starts, end=stops), start=1):
            yield event
            self.progress(done, total)
        self.progress(total, total)

    def _named(self, refs: Sequence[EventRef]) -> Iterator[Event]:
        """The events at exactly these places, in this order. A window of neighbours is read in one go."""
        rest, done = iter(refs), 0
        while window := list(islice(rest, WINDOW)):
            places = {(ref.partition, ref.offset) for ref in window}
            starts, stops = dict(self._begins), dict(self._begins)
            for partition in sorted({partition for partition, _ in places}):
                offsets = [offset for p, offset in places if p == partition]
                starts[partition], stops[partition] = min(offsets), max(offsets) + 1
            found = {
                (event.partition, event.offset): event
                for event in self._view.read(ENTITY, start=starts, end=stops)
                if (event.partition, event.offset) in places
            }
            for ref in window:
                yield self._checked(ref, found.get((ref.partition, ref.offset)))
                done += 1
                self.progress(done, len(refs))

    def _checked(self, ref: EventRef, event: Event | None) -> Event:
        if event is None:
            raise MissingRangeError(
                self._view.name,
                ENTITY,
                ref.partition,
                ref.offset,
                ref.offset + 1,
                "A step that was selected trained it.",
            )
        try:
            found = event.record(ScoredExperience).experience.experience_id
        except DecodeError as error:
            raise ReplayError(f"{_place(ref)}, which a step trained, cannot be read: {error}") from error
        if found != ref.experience_id:
            raise ReplayError(
                f"a step says that {_place(ref)} is {ref.experience_id}, but {found} is there: this is not the log "
                "that the step was taken on, or it was tampered with (rft audit)"
            )
        return event


def trained_by(view: LogView, model: str, steps: Range) -> list[EventRef]:
    """What those steps of the model's surviving lineage trained, step by step, in batch order.

    Raises ReplayError when the log does not hold the steps.
    """
    records = that_count(event.record(TrainingStep) for event in view.read("steps"))
    lineage = surviving(records, model)
    wanted = [step for step in lineage if step.step in steps]
    held = {step.step for step in wanted}
    expected = range(max(steps.first, 1), (max(held, default=0) if steps.last is None else steps.last) + 1)
    missing = next((number for number in expected if number not in held), None)
    if missing is not None or not wanted:
        there = f"steps {lineage[0].step} to {lineage[-1].step}" if lineage else "none"
        raise ReplayError(
            f"{view.name} does not hold step {missing or steps.first} of {model} (trainer.model_key); it has {there}"
        )
    return [ref for step in wanted for ref in step.trained]


def external_rewards(view: LogView) -> list[Reward]:
    """All rewards of the topic ``rewards``. ReplayError if the archive has no such topic."""
    if "rewards" not in view.entities():
        raise ReplayError(f"{view.name} does not hold the topic rewards: see archive.entities")
    rewards = []
    for event in view.read("rewards"):
        try:
            rewards.append(event.record(Reward))
        except DecodeError:
            continue
    return rewards


def _place(ref: EventRef) -> str:
    return f"{ENTITY} {ref.partition}:{ref.offset}"
