"""The four questions of lineage, asked of a log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

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
from rft.errors import DecodeError, RftError
from rft.log.events import Event
from rft.log.topics import topic_name
from rft.log.views import LogView
from rft.stream.fence import that_count
from schemas.events import Experience, ScoredExperience, Task, TrainingStep, WeightVersion


class UnknownError(RftError):
    """The log knows nothing of what was asked for."""


def of_weights(config: Config, view: LogView, version: int) -> WeightsLineage:
    """How a weight version of ``trainer.model_key`` came to be. UnknownError if it was never announced."""
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
        steps_in_all=len(lineage),
        experiences_in_all=len({ref.experience_id for step in lineage for ref in step.trained}),
    )


def of_step(config: Config, view: LogView, number: int) -> StepLineage:
    """What a step of ``trainer.model_key`` was made of. UnknownError if there is no such step."""
    lineage = {step.step: step for step in surviving(_steps(view), config.trainer.model_key)}
    if number not in lineage:
        where = f"{view.name} holds no step {number} of {config.trainer.model_key}"
        raise UnknownError(f"{where}; {_range('steps', lineage)}")
    return _with_experiences(view, [lineage[number]])[0]


def of_experience(config: Config, view: LogView, experience_id: str) -> ExperienceLineage:
    """Where an experience came from and what became of it. UnknownError if the log has never seen it."""
    group_id = experience_id.split("/", 1)[0]
    for experience in _group(config, view, group_id):
        if experience.experience_id == experience_id:
            return experience
    raise UnknownError(f"{view.name} holds no experience {experience_id}")


def of_task(config: Config, view: LogView, group_id: str) -> TaskLineage:
    """A task and all experiences of its group. UnknownError if the log has never seen it."""
    task = next(
        (event.record(Task) for event in view.read("tasks") if event.key == group_id.encode() and _decodes(event)), None
    )
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
    """All experiences of a group by id. Keys are group ids, so nothing else need be decoded."""
    found: dict[str, ExperienceLineage] = {}
    names: dict[tuple[int, int], str] = {}

    def lineage(experience: Experience) -> ExperienceLineage:
        name = experience.experience_id
        return found.setdefault(name, ExperienceLineage(name, experience.group_id, experience.split))

    for event in _keyed(view, "experiences", group_id):
        experience = event.record(Experience)
        names[event.partition, event.offset] = experience.experience_id
        lineage(experience).describe(experience)
        lineage(experience).published.append(_copy(event))
    for event in _keyed(view, "ready", group_id):
        scored = event.record(ScoredExperience)
        lineage(scored.experience).describe(scored.experience)
        lineage(scored.experience).judge(scored)
        lineage(scored.experience).ready.append(_copy(event))
    for name, error in _letters(config, view, names):
        found[name].dead_letters.append(error)
    if found:
        for step in _entries(view):
            for use_of, use in _uses(step):
                if use_of in found:
                    found[use_of].uses.append(use)
    return [found[name] for name in sorted(found)]


def _with_experiences(view: LogView, steps: list[TrainingStep]) -> list[StepLineage]:
    """The steps with the events that they trained, which are read in one go over the stretch that holds them."""
    wanted = {(ref.partition, ref.offset) for step in steps for ref in step.trained}
    held = {} if not wanted else _scored_at(view, wanted)
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
            event = held.get((use.partition, use.offset))
            answer.experiences.append(_trained(name, use, event))
        answers.append(answer)
    return answers


def _trained(name: str, use: Use, event: Event | None) -> ExperienceLineage:
    experience = ExperienceLineage(name, name.split("/", 1)[0], "train", uses=[use])
    if event is not None:
        scored = event.record(ScoredExperience)
        experience.describe(scored.experience)
        experience.judge(scored)
        experience.ready.append(_copy(event))
        experience.published.append(Copy(scored.origin_partition, scored.origin_offset, scored.experience.created_at))
    return experience


def _scored_at(view: LogView, wanted: set[tuple[int, int]]) -> dict[tuple[int, int], Event]:
    begins, ends = view.begin_offsets("ready"), view.end_offsets("ready")
    start, end = dict(ends), dict(ends)
    for partition in begins:
        offsets = [offset for at, offset in wanted if at == partition and begins[at] <= offset < ends[at]]
        if offsets:
            start[partition], end[partition] = min(offsets), max(offsets) + 1
    events = view.read("ready", start=start, end=end)
    return {(event.partition, event.offset): event for event in events if (event.partition, event.offset) in wanted}


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


def _letters(config: Config, view: LogView, names: dict[tuple[int, int], str]) -> Iterable[tuple[str, str]]:
    topic = topic_name(config, "experiences")
    for event in view.read("dlq"):
        headers = {name: (value or b"").decode("utf-8", "replace") for name, value in event.headers}
        partition, offset = headers.get("rft.error.partition", ""), headers.get("rft.error.offset", "")
        if headers.get("rft.error.topic") != topic or not (partition.isdigit() and offset.isdigit()):
            continue
        name = names.get((int(partition), int(offset)))
        if name is not None:
            yield name, f"{headers.get('rft.error.class')}: {headers.get('rft.error.message')}"


def _keyed(view: LogView, entity: str, group_id: str) -> Iterable[Event]:
    key = group_id.encode()
    return (event for event in view.read(entity) if event.key == key and _decodes(event))


def _entries(view: LogView) -> list[TrainingStep]:
    """All entries of ``steps``, of each step only its last word."""
    last: dict[tuple[str, int], int] = {}
    entries = list(_steps(view))
    for index, step in enumerate(entries):
        if step.kind == "step":
            last[step.model, step.step] = index
    return [s for i, s in enumerate(entries) if s.kind != "step" or last[s.model, s.step] == i]


def _steps(view: LogView) -> Iterable[TrainingStep]:
    return that_count(event.record(TrainingStep) for event in view.read("steps") if _decodes(event))


def _weights(view: LogView) -> Iterable[WeightVersion]:
    return (event.record(WeightVersion) for event in view.read("weights") if _decodes(event))


def _copy(event: Event) -> Copy:
    return Copy(event.partition, event.offset, event.timestamp_ms)


def _decodes(event: Event) -> bool:
    try:
        event.record()
    except DecodeError:
        return False
    return True


def _range(what: str, numbers: dict[int, object] | dict[int, WeightVersion] | dict[int, TrainingStep]) -> str:
    return f"it holds {what} {min(numbers)} to {max(numbers)}" if numbers else f"it holds no {what}"
