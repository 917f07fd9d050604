"""Writes events to every topic that are no records of it, as a stranger with a wrong topic name or client would."""

from __future__ import annotations

from rft.config import Config
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.topics import ENTITIES, topic_name
from rft.log.writer import EventWriter
from schemas.codec import encode
from schemas.events import Member

GARBAGE = b"\xc3\x01 no record of anything"
KEY_OF_A_STRANGER = b"\xff\x00 stranger"
BAD_HEADERS = [
    ("ce_id", b"\xff\xfe"),
    ("traceparent", b"\xff"),
    ("rft.error.attempt", b"9" * 5000),
    ("rft.error.first-failure", b"1"),
]
ANOTHER = encode(
    Member(
        member_id="m",
        role="explorer",
        engine="e",
        state="here",
        version=0,
        sha256="",
        address="a",
        heartbeat_at=0,
        stats={},
    )
)
"""A record, but of another topic than most."""


def write_junk(config: Config, entity: str, key: bytes) -> int:
    """Write junk under ``key`` and under a stranger's, tombstones among it. Return how many events."""
    value = ANOTHER if entity != "members" else GARBAGE
    with EventWriter(config, "stranger") as writer:
        for name in (key, KEY_OF_A_STRANGER):
            writer.send_bytes(entity, GARBAGE, key=name, headers=BAD_HEADERS)
            writer.send_bytes(entity, GARBAGE[:2], key=name)
            writer.send_bytes(entity, value, key=name)
            writer.send_bytes(entity, None, key=name)
    return 8


def junk_letters(entity: str) -> int:
    """Return how many of these are dead letters: tombstones of a compacted topic are not."""
    return 6 if ENTITIES[entity].cleanup.startswith("compact") else 8


def letters_of(config: Config, entity: str) -> list[Event]:
    """Return the dead letters of a topic's events so far."""
    found = []
    with EventReader(config, "test-letters", ["dlq"]) as reader:
        ends = reader.end_offsets()
        while not reader.caught_up(ends):
            found += reader.poll(0.5)
    topic = topic_name(config, entity).encode()
    return [event for event in found if dict(event.headers).get("rft.error.topic") == topic]


def origins(letters: list[Event]) -> list[tuple[bytes | None, bytes | None]]:
    headers = [dict(letter.headers) for letter in letters]
    return [(found["rft.error.partition"], found["rft.error.offset"]) for found in headers]
