"""Dead letters as people see them: what each says, which are still open, which are meant. Pure.

The log is the truth here, too. What became of a letter is a further event on ``dlq``, in the letter's partition,
without a value and with the headers ``rft.dlq.resolution`` (``retried`` or ``discarded``), ``rft.dlq.of-partition`` and
``rft.dlq.of-offset``. A letter without one is open. A retried event that fails again is a letter of its own, with the
next attempt's number and the first failure's time; ``rft.dlq.retry-of`` names the letter before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal

from rft.log.dead_letters import PREFIX, VALUE_OMITTED
from rft.log.headers import Headers
from rft.log.reader import Event

MARK = "rft.dlq."
Outcome = Literal["retried", "discarded"]
OUTCOMES: tuple[Outcome, ...] = ("retried", "discarded")
Place = tuple[int, int]
"""(partition, offset) in ``dlq``"""


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter without its value."""

    place: Place
    time_ms: int
    """When it was written, Unix time in ms."""
    key: bytes | None
    size_bytes: int
    stage: str
    error: str
    """Class of the error."""
    message: str
    topic: str
    """Where the event was read from, with its place there."""
    partition: int
    offset: int
    attempt: int
    first_failure_ms: int
    value_omitted: bool
    retry_of: Place | None

    @property
    def name(self) -> str:
        """``partition:offset``, by which people name it."""
        return f"{self.place[0]}:{self.place[1]}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant; None means any."""

    places: Collection[Place] | None = None
    stage: str | None = None
    error: str | None = None
    """The error's class, or part of its message."""
    topic: str | None = None
    """Full name."""
    since_ms: int | None = None
    until_ms: int | None = None
    """Exclusive."""

    def takes(self, letter: Letter) -> bool:
        return (
            (self.places is None or letter.place in self.places)
            and self.stage in (None, letter.stage)
            and self.topic in (None, letter.topic)
            and (self.error is None or self.error == letter.error or self.error.lower() in letter.message.lower())
            and (self.since_ms is None or letter.time_ms >= self.since_ms)
            and (self.until_ms is None or letter.time_ms < self.until_ms)
        )


@dataclass(slots=True)
class DeadLetterIndex:
    """The letters of a selection and what became of them. Feed it ``dlq`` in the order of each partition."""

    selection: Selection = field(default_factory=Selection)
    letters: dict[Place, Letter] = field(default_factory=dict)
    outcomes: dict[Place, Outcome] = field(default_factory=dict)

    def feed_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self.feed(event)

    def feed(self, event: Event) -> None:
        resolved = resolution(event.headers)
        if resolved is not None:
            place, outcome = resolved
            if place in self.letters:
                self.outcomes[place] = outcome
            return
        letter = read_letter(event)
        if self.selection.takes(letter):
            self.letters[letter.place] = letter

    def open(self) -> list[Letter]:
        """Those that nothing became of yet, the oldest first."""
        return [letter for letter in self.all() if letter.place not in self.outcomes]

    def all(self) -> list[Letter]:
        """All of them, the oldest first."""
        return sorted(self.letters.values(), key=lambda letter: (letter.time_ms, letter.place))

    def state(self, letter: Letter) -> str:
        """``open``, ``retried`` or ``discarded``."""
        return self.outcomes.get(letter.place, "open")


def read_letter(event: Event) -> Letter:
    """What an event of ``dlq`` says; headers that are missing or malformed count as empty, 0 or −1."""
    # The newest failure of a letter that was sent again is the last of each name.
    found = {name: (value or b"").decode("utf-8", "replace") for name, value in event.headers}

    def number(name: str, default: int) -> int:
        text = found.get(PREFIX + name, "")
        return int(text) if text.isascii() and text.isdigit() else default

    return Letter(
        place=(event.partition, event.offset),
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
        retry_of=parse_place(found.get(MARK + "retry-of", "")),
    )


def resolution(headers: Headers) -> tuple[Place, Outcome] | None:
    """Which letter an event of ``dlq`` closes, and how; None if it is itself a letter."""
    found = {name: value for name, value in headers if name.startswith((MARK, PREFIX))}
    if PREFIX + "stage" in found:
        return None
    outcome = next((one for one in OUTCOMES if found.get(MARK + "resolution") == one.encode()), None)
    of = b":".join(found.get(MARK + name) or b"" for name in ("of-partition", "of-offset"))
    place = parse_place(of.decode("ascii", "replace"))
    return None if outcome is None or place is None else (place, outcome)


def resolution_headers(place: Place, outcome: Outcome) -> list[tuple[str, bytes | None]]:
    """Headers of the event that closes the letter at ``place``."""
    return [
        (MARK + "resolution", outcome.encode()),
        (MARK + "of-partition", str(place[0]).encode()),
        (MARK + "of-offset", str(place[1]).encode()),
    ]


def retry_headers(event: Event) -> list[tuple[str, bytes | None]]:
    """Headers to send a letter's event again with: its own, and what must survive if it fails again."""
    letter = read_letter(event)
    # Earlier failures stay where they are, on dlq; carried along, they would grow with every attempt.
    own = [(name, value) for name, value in event.headers if not name.startswith((PREFIX, MARK))]
    return [
        *own,
        (PREFIX + "attempt", str(letter.attempt).encode()),
        (PREFIX + "first-failure", str(letter.first_failure_ms).encode()),
        (MARK + "retry-of", letter.name.encode()),
    ]


def parse_place(text: str) -> Place | None:
    """``partition:offset``; None if it is none."""
    partition, _, offset = text.partition(":")
    if not all(part.isascii() and part.isdigit() for part in (partition, offset)):
        return None
    return int(partition), int(offset)
