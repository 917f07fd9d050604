"""Reads sessions back from the log, on a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace

from producers.gateway.contract import SessionEndedError
from rft.config import Config
from rft.errors import MissingRangeError
from rft.log.coordinates import LogPosition
from rft.log.events import Event
from rft.log.exact_reader import ExactReader
from rft.log.reader import EventReader
from rft.log.records import CountedRejects, DeadLetterRejects, read_record
from rft.log.writer import EventWriter
from schemas.codec import decode, encode
from schemas.sessions import OPEN, Session, Turn

IDLE_S = 60.0
"""Reads what other gateways have written this often, even if no session is asked for: the log must not delete it
before it is read."""
JOIN_S = 5.0
MAX_BYTES = 2**30

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadSession:
    """A session as it was read."""

    record: Session
    turns: tuple[Turn, ...]
    """In the order of the record; none if the session has ended."""


class SessionReader:
    """Keeps the newest record of each session, encoded to save memory, and reads their turns when asked."""

    def __init__(self, config: Config, client_id: str, writer: EventWriter) -> None:
        """Connect. Raises BrokerError, TopicError.

        Args:
            config: Names the log.
            client_id: Names the consumers.
            writer: Publishes events of `sessions` that are none as dead letters.
        """
        self._records = EventReader(config, f"{client_id}-sessions", ["sessions"])
        self._turns = ExactReader(config, f"{client_id}-turns", "turns")
        self._rejects = DeadLetterRejects(config, client_id, writer)
        self._bad_turns = CountedRejects()
        self._newest: dict[str, bytes] = {}
        self._open: dict[str, None] = {}
        """Sessions of which the newest record says that they have not ended."""
        self._queue: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="session-reader", daemon=True)
        self._thread.start()

    def read(self, session_id: str) -> Future[ReadSession | None]:
        """Return a future of a session as the log has it at the time of this call; None if it has none.

        The future raises SessionEndedError if its turns are not on the log any more, and BrokerError.
        """
        asked = _Asked(session_id, Future())
        self._queue.put(asked)
        return asked.found

    def open_sessions(self) -> list[str]:
        """Return the names of the sessions that are open, as far as they were read."""
        return list(self._open)

    def close(self) -> None:
        """End the thread and disconnect."""
        self._queue.put(None)
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        asked: list[_Asked] | None = []
        while asked is not None:
            try:
                self._catch_up()
                self._answer(asked)
            # Each is raised where a session was asked for; the next try may succeed.
            except Exception as error:
                if not asked:
                    logger.warning("sessions cannot be read: %s", error)
                for one in asked:
                    one.fail(error)
            asked = self._next()
        self._records.close()
        self._turns.close()

    def _next(self) -> list[_Asked] | None:
        """Return what was asked for meanwhile, together: it costs one look at the log. Return None after ``close``."""
        asked: list[_Asked] = []
        timeout_s = IDLE_S
        with suppress(queue.Empty):
            while (one := self._queue.get(timeout=timeout_s)) is not None:
                asked.append(one)
                timeout_s = 0.0
            return None
        return asked

    def _catch_up(self) -> None:
        """Read `sessions` to its present end."""
        ends = self._records.end_offsets()
        while not self._records.caught_up(ends):
            try:
                events = self._records.poll(0.2, max_events=5000)
            except MissingRangeError:
                # Records that retention deleted are of sessions whose turns it deleted, too.
                positions = self._records.positions
                for at, begin in self._records.begin_offsets().items():
                    if positions[at] < begin:
                        self._records.seek(*at, begin)
                continue
            for event in events:
                self._take(event)

    def _take(self, event: Event) -> None:
        record = read_record(event, Session, self._rejects.reject)
        if record is not None:
            ended = record.state != OPEN
            if ended:
                self._open.pop(record.session_id, None)
            else:
                self._open[record.session_id] = None
            self._newest[record.session_id] = encode(replace(record, turns=(), rewards=()) if ended else record)
        elif event.value is None and event.key is not None:
            name = event.key.decode("utf-8", "replace")
            self._newest.pop(name, None)
            self._open.pop(name, None)

    def _answer(self, asked: list[_Asked]) -> None:
        records = {one.session_id: self._record(one.session_id) for one in asked}
        positions = {
            LogPosition(place.partition, place.offset)
            for record in records.values()
            for place in (record.turns if record else ())
        }
        events = self._turns.read(positions) if positions else {}
        for one in asked:
            record = records[one.session_id]
            try:
                one.succeed(None if record is None else ReadSession(record, self._turns_of(record, events)))
            except SessionEndedError as error:
                one.fail(error)

    def _record(self, session_id: str) -> Session | None:
        encoded = self._newest.get(session_id)
        return None if encoded is None else decode(encoded, Session, max_bytes=MAX_BYTES)

    def _turns_of(self, record: Session, events: dict[LogPosition, Event]) -> tuple[Turn, ...]:
        turns = []
        for place in record.turns:
            event = events.get(LogPosition(place.partition, place.offset))
            turn = None if event is None else read_record(event, Turn, self._bad_turns.reject)
            if turn is None or turn.session_id != record.session_id:
                raise SessionEndedError(
                    f"the session cannot go on: its turn at {place.partition}:{place.offset} of `turns` is no longer "
                    "on the log (log.experience_retention_hours)"
                )
            turns.append(turn)
        return tuple(turns)


@dataclass(frozen=True, slots=True)
class _Asked:
    session_id: str
    found: Future[ReadSession | None]

    def succeed(self, session: ReadSession | None) -> None:
        if self.found.set_running_or_notify_cancel():
            self.found.set_result(session)

    def fail(self, error: Exception) -> None:
        if not self.found.done() and self.found.set_running_or_notify_cancel():
            self.found.set_exception(error)
