"""Sends the events of dead letters again, or closes dead letters for good.

The event is sent first, and its dead letter is closed when the event is acknowledged. If this process is killed in
between, the dead letter is still open and its event is sent once more: consumers know it by its id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from rft.config import Config
from rft.errors import MissingRangeError
from rft.log.coordinates import LogPosition
from rft.log.dead_letter_index import (
    DeadLetterIndex,
    DeadLetterRecord,
    DeadLetterSelection,
    Outcome,
    resolution_headers,
    retry_headers,
)
from rft.log.events import Event
from rft.log.topics import ENTITIES, topic_name
from rft.log.views import LogView
from rft.log.writer import EventWriter

Progress = Callable[[int, int], None]
"""Called with the number of dead letters done and their total."""
_BATCH = 500
_BATCH_BYTES = 32 * 1024 * 1024
_FLUSH_S = 120.0


@dataclass(slots=True)
class ActionResult:
    """What became of the dead letters that an action was asked to handle."""

    done: int = 0
    left_open: dict[str, str] = field(default_factory=dict)
    """The reason, by name of the dead letter."""


def read_dead_letters(view: LogView, selection: DeadLetterSelection | None = None) -> DeadLetterIndex:
    """Index the dead letters of a selection, as of now."""
    index = DeadLetterIndex(selection or DeadLetterSelection())
    index.feed_all(view.read("dlq"))
    return index


def discard(config: Config, letters: Iterable[DeadLetterRecord], progress: Progress) -> ActionResult:
    """Close dead letters without sending their events again. Raises BrokerError if the broker cannot be reached."""
    letters = list(letters)
    with EventWriter(config, "dlq") as writer:
        for done, letter in enumerate(letters, start=1):
            _close(writer, letter, "discarded")
            if done % _BATCH == 0:
                writer.flush(_FLUSH_S)
                progress(done, len(letters))
        writer.flush(_FLUSH_S)
    progress(len(letters), len(letters))
    return ActionResult(done=len(letters))


def retry(
    config: Config, view: LogView, letters: Iterable[DeadLetterRecord], max_attempts: int, progress: Progress
) -> ActionResult:
    """Send the events of dead letters to the topics that they were read from, byte for byte, and close the letters.

    A dead letter stays open if it failed ``max_attempts`` times or cannot be sent. Raises BrokerError.
    """
    letters = list(letters)
    entities = {topic_name(config, name): name for name, spec in ENTITIES.items() if spec.record is not None}
    result = ActionResult()
    todo: dict[LogPosition, DeadLetterRecord] = {}
    for letter in letters:
        if letter.attempt >= max_attempts:
            result.left_open[letter.name] = f"has failed {letter.attempt} times (--max-attempts {max_attempts})"
        elif letter.topic not in entities:
            came_from = letter.topic or "nowhere"
            result.left_open[letter.name] = f"came from {came_from}, which is no topic of this configuration"
        else:
            todo[letter.position] = letter
    with EventWriter(config, "dlq") as writer:
        for batch in _batches(event for event in view.read("dlq") if event.position in todo):
            sent = []
            for event in batch:
                letter = todo[event.position]
                entity = entities[letter.topic]
                try:
                    value = _original_value(view, entity, letter, event)
                except MissingRangeError as error:
                    result.left_open[letter.name] = f"is too large to be kept here, and its event is gone: {error}"
                    continue
                writer.send_bytes(entity, value, key=event.key, headers=retry_headers(event))
                sent.append(letter)
            writer.flush(_FLUSH_S)
            for letter in sent:
                _close(writer, letter, "retried")
            writer.flush(_FLUSH_S)
            result.done += len(sent)
            progress(result.done + len(result.left_open), len(letters))
    return result


def _original_value(view: LogView, entity: str, letter: DeadLetterRecord, event: Event) -> bytes | None:
    if letter.value_omitted:
        return view.fetch(entity, letter.partition, letter.offset).value
    return event.value


def _close(writer: EventWriter, letter: DeadLetterRecord, outcome: Outcome) -> None:
    # In the letter's partition: readers see the letter first, and retention deletes it first.
    writer.send_bytes(
        "dlq",
        None,
        key=letter.key,
        headers=resolution_headers(letter.position, outcome),
        partition=letter.position.partition,
    )


def _batches(events: Iterable[Event]) -> Iterator[list[Event]]:
    batch: list[Event] = []
    size = 0
    for event in events:
        batch.append(event)
        size += len(event.value or b"")
        if len(batch) >= _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
