"""Makes selected events without a log, and writes a small trainable run to a log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from consumers.replay.selected_event import SelectedEvent
from rft.config import Config
from rft.log.writer import EventWriter
from schemas.events import EventRef, ScoredExperience, TrainingStep
from tests.synthetic import scored

SAMPLES = 4
GROUPS_PER_STEP = 2


def selected_event(number: int = 0, sample: int = 0, *, offset: int | None = None, **changes: Any) -> SelectedEvent:
    """Return one sample of group ``number``. ``changes`` are fields of the ScoredExperience or the Experience."""
    metadata = changes.pop("metadata", "{}")
    event = scored(number, sample, SAMPLES, **changes)
    event = replace(event, experience=replace(event.experience, metadata=metadata))
    offset = number * SAMPLES + sample if offset is None else offset
    return SelectedEvent(0, offset, 1_700_000_000_000 + offset, event, event.reward)


def write_trainable_run(config: Config, *, groups: int = 8, steps: int = 3) -> list[TrainingStep]:
    """Write groups to ``ready``, then steps that trained them in another order: the highest numbers first."""
    with EventWriter(config, "test") as writer:
        refs: dict[int, list[EventRef]] = {}
        for sample in range(SAMPLES):
            for number in range(groups):
                refs.setdefault(number, []).append(_write(writer, scored(number, sample, SAMPLES, version=number // 2)))
        entries = []
        for step in range(1, steps + 1):
            numbers = range(groups - step * GROUPS_PER_STEP, groups - (step - 1) * GROUPS_PER_STEP)
            trained = tuple(ref for number in numbers for ref in refs[number])
            entry = TrainingStep(
                config.trainer.model_key, "step", step, step - 1, step, trained, (), tuple(numbers), f"d{step}", {}, 1
            )
            writer.send("steps", entry)
            entries.append(entry)
        writer.flush()
    return entries


def _write(writer: EventWriter, event: ScoredExperience) -> EventRef:
    sent = writer.send("ready", event).get(10)
    experience = event.experience
    return EventRef(sent.partition, sent.offset, experience.experience_id, experience.number, 0)
