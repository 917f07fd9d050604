"""Keeps an index of dead letters for people: what each says, which are open, which are selected. Pure.

What became of a dead letter is a further event on ``dlq``, in the dead letter's partition. It has no value, and the
headers ``rft.dlq.resolution`` (``retried`` or ``discarded``), ``rft.dlq.of-partition`` and ``rft.dlq.of-offset``. A
dead letter without such an event is open. A retried event that fails again is a dead letter of its own, with the next
attempt's number and the first failure's time; ``rft.dlq.retry-of`` names the dead letter before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal

from rft.log.coordinates import LogPosition
from rft.log.dead_letters import EARLIER_STAGES, PREFIX, VALUE_OMITTED, parse_number, without_failure
from rft.log.events import Event
from schemas.framing import Headers

RESOLUTION_PREFIX = "rft.dlq."
Outcome = Literal["retried", "discarded"]
OUTCOMES: tuple[Outcome, ...] = ("retried", "discarded")


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """What one dead letter says, without its value."""

    position: LogPosition
    """In ``dlq``."""
    time_ms: int
    """When it was written, Unix time in ms."""
    key: bytes | None
    size_bytes: int
    stage: str
    error: str
    """Class of the error."""
    message: str
    topic: str
    """Topic that the event was read from; ``partition`` and ``offset`` are its position there."""
    partition: int
    offset: int
    attempt: int
    first_failure_ms: int
    value_omitted: bool
    retry_of: LogPosition | None

    @property
    def name(self) -> str:
        """``partition:offset``, by which people name it."""
        return f"{self.position.partition}:{self.position.offset}"


@dataclass(frozen=True, slots=True)
class DeadLetterSelection:
    """Selects dead letters; None selects any."""

    positions: Collection[LogPosition] | None = None
    stage: str | None = None
    error: str | None = None
    """The error's class, or part of its message."""
    topic: str | None = None
    """Full name."""
    since_ms: int | None = None
    until_ms: int | None = None
    """Exclusive."""

    def selects(self, letter: DeadLetterRecord) -> bool:
        return (
            (self.positions is None or letter.position in self.positions)
            and self.stage in (None, letter.stage, EARLIER_STAGES.get(letter.stage))
            and self.topic in (None, letter.topic)
            and (self.error is None or self.error == letter.error or self.error.lower() in letter.message.lower())
            and (self.since_ms is None or letter.time_ms >= self.since_ms)
            and (self.until_ms is None or letter.time_ms < self.until_ms)
        )


@dataclass(slots=True)
class DeadLetterIndex:
    """The selected dead letters and what became of them. Feed it ``dlq``, each partition in order."""

    selection: DeadLetterSelection = field(default_factory=DeadLetterSelection)
    letters: dict[LogPosition, DeadLetterRecord] = field(default_factory=dict)
    outcomes: dict[LogPosition, Outcome] = field(default_factory=dict)

    def feed_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self.feed(event)

    def feed(self, event: Event) -> None:
        resolved = resolution(event.headers)
        if resolved is not None:
            position, outcome = resolved
            if position in self.letters:
                self.outcomes[position] = outcome
            return
        letter = read_dead_letter(event)
        if self.selection.selects(letter):
            self.letters[letter.position] = letter

    def open(self) -> list[DeadLetterRecord]:
        """Return those without an outcome, the oldest first."""
        return [letter for letter in self.all() if letter.position not in self.outcomes]

    def all(self) -> list[DeadLetterRecord]:
        """Return all of them, the oldest first."""
        return sorted(self.letters.values(), key=lambda letter: (letter.time_ms, letter.position))

    def state(self, letter: DeadLetterRecord) -> str:
        """Return ``open``, ``retried`` or ``discarded``."""
        return self.outcomes.get(letter.position, "open")

    def earlier(self, letter: DeadLetterRecord) -> list[DeadLetterRecord]:
        """Return the dead letters of the same event's earlier attempts, the first attempt first."""
        chain: list[DeadLetterRecord] = []
        seen = {letter.position}
        while letter.retry_of in self.letters and letter.retry_of not in seen:
            letter = self.letters[letter.retry_of]
            seen.add(letter.position)
            chain.insert(0, letter)
        return chain


def read_dead_letter(event: Event) -> DeadLetterRecord:
    """Read an event of ``dlq``. Headers that are missing or malformed count as empty, 0 or −1."""
    # If it was sent again and failed again, the newest failure is the last of each name.
    found = {name: (value or b"").decode("utf-8", "replace") for name, value in event.headers}

    def number(name: str, default: int) -> int:
        parsed = parse_number(found.get(PREFIX + name, ""))
        return default if parsed is None else parsed

    return DeadLetterRecord(
        position=event.position,
        time_ms=event.timestamp_ms,
        key=event.key,
        size_bytes=len(event.value or b""),
        stage=found.get(PREFIX + "stage", ""),
        error=found.get(PREFIX + "class", ""),
        message=found.get(PREFIX + "message", ""),
        topic=found.get(PREFIX + "topic", ""),
        partition=number("partition", -1),
        offset=number("offset", -1),
        attempt=number("attempt", 1),
        first_failure_ms=number("first-failure", event.timestamp_ms),
        value_omitted=VALUE_OMITTED in found,
        retry_of=parse_position(found.get(RESOLUTION_PREFIX + "retry-of", "")),
    )


def resolution(headers: Headers) -> tuple[LogPosition, Outcome] | None:
    """Return which dead letter an event of ``dlq`` closes, and how; None if the event is itself a dead letter."""
    found = {name: value for name, value in headers if name.startswith((RESOLUTION_PREFIX, PREFIX))}
    if PREFIX + "stage" in found:
        return None
    outcome = next((one for one in OUTCOMES if found.get(RESOLUTION_PREFIX + "resolution") == one.encode()), None)
    numbers = (found.get(RESOLUTION_PREFIX + name) or b"" for name in ("of-partition", "of-offset"))
    position = parse_position(b":".join(numbers).decode("ascii", "replace"))
    return None if outcome is None or position is None else (position, outcome)


def resolution_headers(position: LogPosition, outcome: Outcome) -> list[tuple[str, bytes | None]]:
    """Return the headers of the event that closes the dead letter at ``position``."""
    return [
        (RESOLUTION_PREFIX + "resolution", outcome.encode()),
        (RESOLUTION_PREFIX + "of-partition", str(position.partition).encode()),
        (RESOLUTION_PREFIX + "of-offset", str(position.offset).encode()),
    ]


def retry_headers(event: Event) -> list[tuple[str, bytes | None]]:
    """Return the headers to send a dead letter's event again with: its own, and what a next failure must know."""
    letter = read_dead_letter(event)
    # Earlier failures stay on dlq; carried along, their headers would grow with every attempt.
    own = [header for header in without_failure(event.headers) if not header[0].startswith(RESOLUTION_PREFIX)]
    return [
        *own,
        (PREFIX + "attempt", str(letter.attempt).encode()),
        (PREFIX + "first-failure", str(letter.first_failure_ms).encode()),
        (RESOLUTION_PREFIX + "retry-of", letter.name.encode()),
    ]


def parse_position(text: str) -> LogPosition | None:
    """Parse ``partition:offset``; return None for anything else."""
    partition, _, offset = text.partition(":")
    numbers = parse_number(partition), parse_number(offset)
    return None if numbers[0] is None or numbers[1] is None else LogPosition(numbers[0], numbers[1])
