"""Traces weights, steps, experiences and tasks in a log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from consumers.lineage.facts import (
    Copy,
    ExperienceLineage,
    StepLineage,
    TaskLineage,
    Use,
    WeightsLineage,
    surviving,
)
from rft.config import Config
from rft.errors import RftError
from rft.log.coordinates import LogPosition
from rft.log.dead_letter_index import read_dead_letter
from rft.log.events import Event
from rft.log.records import CountedRejects, R, read_record, read_records
from rft.log.topics import topic_name
from rft.log.views import LogView
from rft.stream.fence import unfenced_entries
from schemas.events import Experience, ScoredExperience, Task, TrainingStep, WeightVersion


class UnknownError(RftError):
    """The log holds nothing about what was asked for."""


def trace_weights(config: Config, view: LogView, version: int) -> WeightsLineage:
    """Trace a weight version of ``trainer.model_key``. Raises UnknownError if it was never announced."""
    model = config.trainer.model_key
    announced = {record.version: record for record in _weights(view) if record.model == model}
    if version not in announced:
        raise UnknownError(f"{view.name} holds no version {version} of {model}; {_range('versions', announced)}")
    weights, previous = announced[version], announced.get(version - 1)
    lineage = [step for step in surviving(_steps(view), model) if step.step <= weights.step]
    made = [step for step in lineage if previous is not None and step.step > previous.step]
    return WeightsLineage(
        weights=weights,
        previous=previous.version if previous else None,
        steps=_with_experiences(view, made),
        total_steps=len(lineage),
        total_experiences=len({ref.experience_id for step in lineage for ref in step.trained}),
    )


def trace_step(config: Config, view: LogView, number: int) -> StepLineage:
    """Trace a step of ``trainer.model_key``. Raises UnknownError if there is no such step."""
    lineage = {step.step: step for step in surviving(_steps(view), config.trainer.model_key)}
    if number not in lineage:
        where = f"{view.name} holds no step {number} of {config.trainer.model_key}"
        raise UnknownError(f"{where}; {_range('steps', lineage)}")
    return _with_experiences(view, [lineage[number]])[0]


def trace_experience(config: Config, view: LogView, experience_id: str) -> ExperienceLineage:
    """Trace where an experience came from and what became of it. Raises UnknownError if it is not on the log."""
    group_id = experience_id.split("/", 1)[0]
    for experience in _group(config, view, group_id):
        if experience.experience_id == experience_id:
            return experience
    raise UnknownError(f"{view.name} holds no experience {experience_id}")


def trace_task(config: Config, view: LogView, group_id: str) -> TaskLineage:
    """Trace a task and all experiences of its group. Raises UnknownError if it is not on the log."""
    task = next((task for _, task in _keyed(view, "tasks", group_id, Task)), None)
    experiences = _group(config, view, group_id)
    if task is None and not experiences:
        raise UnknownError(f"{view.name} holds no task {group_id}")
    return TaskLineage(
        group_id=group_id,
        number=task.number if task else None,
        split=task.split if task else None,
        prompt=task.prompt if task else None,
        answer=task.answer if task else None,
        issued_at=task.issued_at if task else None,
        min_version=task.min_version if task else None,
        experiences=experiences,
    )


def _group(config: Config, view: LogView, group_id: str) -> list[ExperienceLineage]:
    """Return all experiences of a group by id. Keys are group ids, so events with other keys are not decoded."""
    found: dict[str, ExperienceLineage] = {}
    names: dict[LogPosition, str] = {}

    def lineage(experience: Experience) -> ExperienceLineage:
        name = experience.experience_id
        return found.setdefault(name, ExperienceLineage(name, experience.group_id, experience.split))

    for event, experience in _keyed(view, "experiences", group_id, Experience):
        names[event.position] = experience.experience_id
        lineage(experience).describe(experience)
        lineage(experience).published.append(_copy(event))
    for event, scored in _keyed(view, "ready", group_id, ScoredExperience):
        lineage(scored.experience).describe(scored.experience)
        lineage(scored.experience).add_verdict(scored)
        lineage(scored.experience).ready.append(_copy(event))
    for name, error in _dead_letters(config, view, names):
        found[name].dead_letters.append(error)
    if found:
        for step in _entries(view):
            for name, use in _uses(step):
                if name in found:
                    found[name].uses.append(use)
    return [found[name] for name in sorted(found)]


def _with_experiences(view: LogView, steps: list[TrainingStep]) -> list[StepLineage]:
    """Return the steps with the events that they trained."""
    wanted = {LogPosition(ref.partition, ref.offset) for step in steps for ref in step.trained}
    events = _events_at(view, wanted) if wanted else {}
    answers = []
    for step in steps:
        answer = StepLineage(
            model=step.model,
            step=step.step,
            from_version=step.version,
            to_version=step.next_version,
            digest=step.digest,
            created_at=step.created_at,
            metrics=dict(step.metrics),
            dropped=dict(Counter(ref.cause for ref in step.dropped)),
        )
        uses = [(name, use) for name, use in _uses(step) if use.trained]
        for name, use in uses:
            event = events.get(LogPosition(use.partition, use.offset))
            answer.experiences.append(_trained(name, use, event))
        answers.append(answer)
    return answers


def _trained(name: str, use: Use, event: Event | None) -> ExperienceLineage:
    experience = ExperienceLineage(name, name.split("/", 1)[0], "train", uses=[use])
    scored = None if event is None else read_record(event, ScoredExperience, CountedRejects().reject)
    if event is not None and scored is not None:
        experience.describe(scored.experience)
        experience.add_verdict(scored)
        experience.ready.append(_copy(event))
        experience.published.append(Copy(scored.origin_partition, scored.origin_offset, scored.experience.created_at))
    return experience


def _events_at(view: LogView, wanted: set[LogPosition]) -> dict[LogPosition, Event]:
    """Read the range of ``ready`` that holds the wanted events at once, without what the log no longer holds."""
    begins, ends = view.begin_offsets("ready"), view.end_offsets("ready")
    start, end = dict(ends), dict(ends)
    for partition in begins:
        offsets = [offset for at, offset in wanted if at == partition and begins[at] <= offset < ends[at]]
        if offsets:
            start[partition], end[partition] = min(offsets), max(offsets) + 1
    events = view.read("ready", start=start, end=end)
    return {event.position: event for event in events if event.position in wanted}


def _uses(step: TrainingStep) -> Iterable[tuple[str, Use]]:
    for ref in (*step.trained, *step.dropped):
        yield (
            ref.experience_id,
            Use(
                model=step.model,
                kind=step.kind,
                step=step.step,
                cause=ref.cause,
                partition=ref.partition,
                offset=ref.offset,
                staleness=ref.staleness,
                from_version=step.version,
                to_version=step.next_version,
            ),
        )


def _dead_letters(config: Config, view: LogView, names: Mapping[LogPosition, str]) -> Iterable[tuple[str, str]]:
    topic = topic_name(config, "experiences")
    for event in view.read("dlq"):
        letter = read_dead_letter(event)
        name = names.get(LogPosition(letter.partition, letter.offset))
        if letter.topic == topic and name is not None:
            yield name, f"{letter.error}: {letter.message}"


def _keyed(view: LogView, entity: str, group_id: str, kind: type[R]) -> Iterable[tuple[Event, R]]:
    """Yield the group's events with their records, without those that are no records of the topic."""
    key, rejects = group_id.encode(), CountedRejects()
    for event in view.read(entity):
        if event.key == key and (record := read_record(event, kind, rejects.reject)) is not None:
            yield event, record


def _entries(view: LogView) -> list[TrainingStep]:
    """Return all entries of ``steps``; of each gradient step only the last."""
    entries = list(_steps(view))
    last: dict[tuple[str, int], int] = {}
    for index, step in enumerate(entries):
        if step.kind == "step":
            last[step.model, step.step] = index
    return [s for i, s in enumerate(entries) if s.kind != "step" or last[s.model, s.step] == i]


def _steps(view: LogView) -> Iterable[TrainingStep]:
    return unfenced_entries(read_records(view.read("steps"), TrainingStep, CountedRejects().reject))


def _weights(view: LogView) -> Iterable[WeightVersion]:
    return read_records(view.read("weights"), WeightVersion, CountedRejects().reject)


def _copy(event: Event) -> Copy:
    return Copy(event.partition, event.offset, event.timestamp_ms)


def _range(kind: str, numbers: Collection[int]) -> str:
    return f"it holds {kind} {min(numbers)} to {max(numbers)}" if numbers else f"it holds no {kind}"
