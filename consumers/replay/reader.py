"""Reads the selected events from a log, always in the same order.

Without ``steps`` that is the order of :meth:`rft.log.views.LogView.read`: each partition by offset, and between
partitions the lowest (timestamp, partition, offset) first. With ``steps`` it is the order in which they were trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from consumers.evaluation import Progress
from consumers.lineage.facts import surviving
from consumers.replay import ReplayError
from consumers.replay.rescoring import Rescorer
from consumers.replay.selected_event import SelectedEvent
from consumers.replay.selection import Range, Selection
from rft.config import Config
from rft.errors import DecodeError, MissingRangeError
from rft.log.coordinates import LogPosition
from rft.log.events import Event
from rft.log.records import CountedRejects, read_records
from rft.log.views import LogView
from rft.stream.fence import unfenced_entries
from schemas.events import EventRef, Reward, ScoredExperience, TrainingStep

ENTITY = "ready"
WINDOW = 8192
"""Events of recorded steps that are read together and held in memory."""


@dataclass(slots=True)
class Counts:
    """Number of events by what became of them."""

    read: int = 0
    unreadable: int = 0
    repeated: int = 0
    """Events of an experience that an earlier event holds."""
    selected: int = 0


class ReplayReader:
    """Reads the selected events, and counts the others."""

    def __init__(self, config: Config, view: LogView, selection: Selection, rescorers: Sequence[Rescorer] = ()) -> None:
        """``rescorers`` are applied one after the other, before the filter.

        Raises SelectionError if the selection contradicts itself or the log's partitions.
        """
        self._config = config
        self._view = view
        self.selection = selection
        self._rescorers = rescorers
        self._where = selection.compile_where()
        self._begins, self._ends = view.begin_offsets(ENTITY), view.end_offsets(ENTITY)
        self._bounds = selection.bounds(self._begins, self._ends)
        self.counts = Counts()

    def read(self, progress: Progress = lambda done, total: None) -> Iterator[SelectedEvent]:
        """Yield the selected events. If the log holds an experience twice, only its first event is selected.

        Raises MissingRangeError, ArchiveError, BrokerError or ReplayError if the log does not hold what is selected,
        and SelectionError if the filter compares values that cannot be compared.
        """
        seen: set[str] = set()
        for event in self._events(progress):
            self.counts.read += 1
            selected = self._select(event)
            if selected is None:
                continue
            experience_id = selected.scored.experience.experience_id
            if experience_id in seen:
                self.counts.repeated += 1
                continue
            seen.add(experience_id)
            if self._where is None or self._where(selected):
                self.counts.selected += 1
                yield selected

    def _select(self, event: Event) -> SelectedEvent | None:
        """Decode and rescore an event. Return None if it is unreadable or outside the selected times or versions."""
        selection = self.selection
        if not selection.matches_time(event.timestamp_ms):
            return None
        try:
            scored = event.record(ScoredExperience)
        except DecodeError:
            self.counts.unreadable += 1
            return None
        if not selection.matches_versions(scored.experience):
            return None
        recorded = scored.reward
        for rescore in self._rescorers:
            scored = rescore(scored)
        return SelectedEvent(event.partition, event.offset, event.timestamp_ms, scored, recorded)

    def _events(self, progress: Progress) -> Iterator[Event]:
        if self.selection.steps is not None:
            refs = trained_refs(self._view, self._config.trainer.model_key, self.selection.steps)
            yield from self._events_at(
                [ref for ref in refs if self.selection.matches_offsets(_position(ref))], progress
            )
            return
        starts, stops = self._bounds
        total = sum(stops[partition] - starts[partition] for partition in starts)
        for done, event in enumerate(self._view.read(ENTITY, start=starts, end=stops), start=1):
            yield event
            progress(done, total)
        progress(total, total)

    def _events_at(self, refs: Sequence[EventRef], progress: Progress) -> Iterator[Event]:
        """Yield the events that ``refs`` name, in this order. A window of neighboring events is read at once."""
        rest, done = iter(refs), 0
        while window := list(islice(rest, WINDOW)):
            positions = {_position(ref) for ref in window}
            starts, stops = dict(self._begins), dict(self._begins)
            for partition in sorted({position.partition for position in positions}):
                offsets = [position.offset for position in positions if position.partition == partition]
                starts[partition], stops[partition] = min(offsets), max(offsets) + 1
            events = {
                LogPosition(event.partition, event.offset): event
                for event in self._view.read(ENTITY, start=starts, end=stops)
                if (event.partition, event.offset) in positions
            }
            for ref in window:
                yield self._checked(ref, events.get(_position(ref)))
                done += 1
                progress(done, len(refs))

    def _checked(self, ref: EventRef, event: Event | None) -> Event:
        """Return ``event`` if it is the one that ``ref`` names. Raises MissingRangeError and ReplayError otherwise."""
        if event is None:
            raise MissingRangeError(
                self._view.name,
                ENTITY,
                ref.partition,
                ref.offset,
                ref.offset + 1,
                "A selected step trained it.",
            )
        name = f"{ENTITY} {ref.partition}:{ref.offset}"
        try:
            actual = event.record(ScoredExperience).experience.experience_id
        except DecodeError as error:
            raise ReplayError(f"{name}, which a step trained, cannot be read: {error}") from error
        if actual != ref.experience_id:
            raise ReplayError(
                f"a step records that {name} is {ref.experience_id}, but {actual} is there: this is not the log that "
                "the step was taken on, or someone changed it; check it with rft audit"
            )
        return event


def trained_refs(view: LogView, model: str, steps: Range) -> list[EventRef]:
    """Return what those steps of the model's surviving lineage trained, step by step, in batch order.

    Raises ReplayError if the log does not hold the steps.
    """
    records = unfenced_entries(read_records(view.read("steps"), TrainingStep, CountedRejects().reject, keyed=False))
    lineage = surviving(records, model)
    selected = [step for step in lineage if step.step in steps]
    numbers = {step.step for step in selected}
    expected = range(max(steps.first, 1), (max(numbers, default=0) if steps.last is None else steps.last) + 1)
    missing = next((number for number in expected if number not in numbers), None)
    if missing is not None or not selected:
        held = f"steps {lineage[0].step} to {lineage[-1].step}" if lineage else "none"
        raise ReplayError(
            f"{view.name} does not hold step {missing or steps.first} of {model} (trainer.model_key); it has {held}"
        )
    return [ref for step in selected for ref in step.trained]


def external_rewards(view: LogView) -> list[Reward]:
    """Return all rewards of the topic ``rewards``. Raises ReplayError if the archive has no such topic."""
    if "rewards" not in view.entities():
        raise ReplayError(f"{view.name} does not hold the topic rewards: see archive.entities")
    return list(read_records(view.read("rewards"), Reward, CountedRejects().reject, keyed=False))


def _position(ref: EventRef) -> LogPosition:
    return LogPosition(ref.partition, ref.offset)
