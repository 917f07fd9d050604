"""Sends dead letters again, or closes them for good.

An event is sent first and its letter closed when it is acknowledged. Killed in between, the letter is still open and
its event is sent once more: consumers know it by its id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from rft.config import Config
from rft.errors import MissingRangeError
from rft.log.dead_letter_index import DeadLetterIndex, Letter, Outcome, Selection, resolution_headers, retry_headers
from rft.log.events import Event, EventWriter
from rft.log.topics import ENTITIES, topic_name
from rft.log.views import LogView

Progress = Callable[[int, int], None]
"""Called with the letters done and their total."""
_BATCH = 500
_BATCH_BYTES = 32 * 1024 * 1024
_FLUSH_S = 120.0


@dataclass(slots=True)
class Result:
    """What became of the letters that were meant."""

    done: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    """Why letters, by name, are still open."""


def read_book(view: LogView, selection: Selection | None = None) -> DeadLetterIndex:
    """The letters of a selection, as of now."""
    book = DeadLetterIndex(selection or Selection())
    book.feed_all(view.read("dlq"))
    return book


def discard(config: Config, letters: Iterable[Letter], progress: Progress) -> Result:
    """Close letters without sending their events again. BrokerError if the broker cannot be reached."""
    letters = list(letters)
    with EventWriter(config, "dlq") as writer:
        for done, letter in enumerate(letters, start=1):
            _close(writer, letter, "discarded")
            if done % _BATCH == 0:
                writer.flush(_FLUSH_S)
                progress(done, len(letters))
        writer.flush(_FLUSH_S)
    progress(len(letters), len(letters))
    return Result(done=len(letters))


def retry(config: Config, view: LogView, letters: Iterable[Letter], max_attempts: int, progress: Progress) -> Result:
    """Send the events of letters to the topics that they were read from, byte for byte, and close the letters.

    What failed ``max_attempts`` times stays open, as does what cannot be sent. Raises BrokerError.
    """
    letters = list(letters)
    result, todo = Result(), {}
    entities = {topic_name(config, name): name for name, spec in ENTITIES.items() if spec.record is not None}
    for letter in letters:
        if letter.attempt >= max_attempts:
            result.kept[letter.name] = f"has failed {letter.attempt} times (--max-attempts {max_attempts})"
        elif letter.topic not in entities:
            result.kept[letter.name] = f"came from {letter.topic or 'nowhere'}, no topic of {config.log.namespace}.*"
        else:
            todo[letter.place] = letter
    with EventWriter(config, "dlq") as writer:
        for batch in _batches(event for event in view.read("dlq") if (event.partition, event.offset) in todo):
            sent = []
            for event in batch:
                letter = todo[event.partition, event.offset]
                entity = entities[letter.topic]
                try:
                    value = (
                        view.fetch(entity, letter.partition, letter.offset).value
                        if letter.value_omitted
                        else event.value
                    )
                except MissingRangeError as error:
                    result.kept[letter.name] = f"is too large to be kept here, and its event is gone: {error}"
                    continue
                writer.send_bytes(entity, value, key=event.key, headers=retry_headers(event))
                sent.append(letter)
            writer.flush(_FLUSH_S)
            for letter in sent:
                _close(writer, letter, "retried")
            writer.flush(_FLUSH_S)
            result.done += len(sent)
            progress(result.done + len(result.kept), len(letters))
    return result


def _close(writer: EventWriter, letter: Letter, outcome: Outcome) -> None:
    # In the letter's partition: whoever reads on there has read the letter before, and retention takes it first.
    writer.send_bytes(
        "dlq",
        None,
        key=letter.key,
        headers=resolution_headers(letter.place, outcome),
        partition=letter.place[0],
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
