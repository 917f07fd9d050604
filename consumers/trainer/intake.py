"""What the trainer reads from ``ready``: new events into the buffer, old ones by their exact place."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable

from rft.config import Config
from rft.errors import BrokerError, DecodeError, MissingRangeError
from rft.log.dead_letters import dead_letter_headers, earlier_failure
from rft.log.events import Event, EventReader, EventWriter, Position
from rft.log.retention import SKIP, deleted, skip_or_raise
from rft.log.topics import topic_name
from rft.training.assembly import Assembly
from rft.training.buffer import Group, GroupBuffer
from rft.training.pool import Pool
from rft.training.priority import make_priority
from rft.training.progress import LogProgress
from rft.training.sample import Sample, Wanted, read_payload, read_sample
from schemas.events import ScoredExperience

_REDO = "the steps after the checkpoint, or groups that wait in memory as pointers, need exactly these"
Place = tuple[int, int]
"""(partition, offset) in ``ready``"""
ENTITY = "ready"

logger = logging.getLogger(__name__)


class Intake:
    """Reads forward from the trainer's positions into its buffer."""

    def __init__(
        self, config: Config, writer: EventWriter, progress: LogProgress | None, max_bytes: int, wanted: Wanted
    ) -> None:
        """Starts at the positions of ``progress``, or at the beginning of the log.

        Raises MissingRangeError when the log no longer holds them, unless ``log.skip_deleted``.
        """
        self._config = config
        self._writer = writer
        self._wanted = wanted
        positions = {(ENTITY, p): offset for p, offset in progress.positions.items()} if progress else None
        self._reader = _reader_at(config, positions)
        self._unread = self._reader.end_offsets()
        begins = {p: offset for (_, p), offset in self._reader.positions.items()}
        self.progress = progress or LogProgress(begins)
        self.progress.cover(begins)
        self.max_bytes = max_bytes
        priority = make_priority(config.buffer)

        def priority_of(group: Group) -> float:
            return priority(group.facts)

        shares = config.buffer.shares(config.trainer.groups_per_step)
        kinds = {kind for kind, count in shares.items() if count} if shares else None
        self.buffer = GroupBuffer(max_bytes, self.progress.retired, priority_of, kinds)
        self.pool = Pool(config.buffer, priority_of, config.run.seed)
        self.assembly = Assembly(config.buffer, config.trainer.groups_per_step, self.buffer, self.pool)

    def rewind(self) -> None:
        """Read on from the progress's positions, which a redo has moved."""
        self.progress.rewind()
        for partition, offset in self.progress.positions.items():
            self._reader.seek(ENTITY, partition, offset)

    def caught_up(self) -> bool:
        """Whether all that was on the log at the start was read."""
        self._unread = {where: end for where, end in self._unread.items() if self._reader.reached(*where) < end}
        return not self._unread

    def poll(self, timeout_s: float) -> list[Event]:
        """New events, of any kind. MissingRangeError when they were deleted, unless ``log.skip_deleted``."""
        try:
            return self._reader.poll(timeout_s, max_events=256)
        except MissingRangeError as error:
            skip_or_raise(self._config, error)
            self._reader.seek(ENTITY, error.partition, error.end)
            return []

    def take_in(self, events: Iterable[Event]) -> None:
        """Put what is for training into the buffer."""
        for event in events:
            if not self.progress.read(event.partition, event.offset):
                continue
            try:
                scored = event.record(ScoredExperience)
            except DecodeError as error:
                self._bury(event, error)
                self.progress.finish(event.partition, event.offset)
                continue
            if scored.experience.split == "train":
                self.buffer.add(read_sample(event.partition, event.offset, scored, self._wanted))
            else:
                self.progress.finish(event.partition, event.offset)

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()

    def _bury(self, event: Event, error: DecodeError) -> None:
        topic = topic_name(self._config, ENTITY)
        logger.warning("dead letter: %s %d:%d: %s", topic, event.partition, event.offset, error)
        attempt, first_failure_ms = earlier_failure(event.headers) or (0, int(time.time() * 1000))
        headers = dead_letter_headers(
            event.headers,
            stage="train",
            error=error,
            topic=topic,
            partition=event.partition,
            offset=event.offset,
            attempt=attempt + 1,
            first_failure_ms=first_failure_ms,
        )
        self._writer.send_bytes("dlq", event.value, key=event.key, headers=headers)


class ExactReader:
    """Fetches events of ``ready`` by place: those of steps to redo, and those that the buffer kept as pointers."""

    def __init__(self, config: Config, wanted: Wanted) -> None:
        self._config = config
        self._wanted = wanted
        self._reader: EventReader | None = None

    def samples(self, places: Collection[Place]) -> list[Sample]:
        """The samples at ``places``, in that order, with their arrays.

        Raises MissingRangeError when the log no longer holds one of them, DecodeError when one is damaged.
        """
        found = self._fetch(places)
        samples = []
        for place in places:
            scored = found[place].record(ScoredExperience)
            sample = read_sample(*place, scored, self._wanted)
            sample.payload = read_payload(scored, self._wanted)
            samples.append(sample)
        return samples

    def used(self, places: Collection[tuple[int, int, int]]) -> list[Sample]:
        """The samples at (partition, offset), with the times that they were trained. Raises as ``samples`` does."""
        samples = self.samples([(partition, offset) for partition, offset, _ in places]) if places else []
        for sample, (*_, uses) in zip(samples, places, strict=True):
            sample.uses = uses
        return samples

    def fill(self, samples: Iterable[Sample]) -> None:
        """Fetch the arrays of samples that are pointers."""
        pointers = [sample for sample in samples if sample.payload is None]
        if pointers:
            for sample, fetched in zip(pointers, self.samples([s.place for s in pointers]), strict=True):
                sample.payload = fetched.payload

    def close(self) -> None:
        """Disconnect."""
        if self._reader is not None:
            self._reader.close()

    def _fetch(self, places: Collection[Place]) -> dict[Place, Event]:
        reader = self._aim(places)
        wanted, found = set(places), {}
        while wanted:
            for event in reader.poll(1.0):
                place = (event.partition, event.offset)
                if place in wanted:
                    found[place] = event
                    wanted.discard(place)
            passed = next(((p, o) for p, o in sorted(wanted) if reader.positions[ENTITY, p] > o), None)
            if passed is not None:
                raise deleted(self._config, ENTITY, *passed, passed[1] + 1, needed=_REDO)
        return found

    def _aim(self, places: Collection[Place]) -> EventReader:
        """A reader at the first place of each partition, and at the end of those without any."""
        if self._reader is None:
            self._reader = EventReader(
                self._config,
                f"{client_id(self._config)}-exact",
                [ENTITY],
                from_end=True,
                needed=_REDO,
                # Redoing reads back and forth; fetching far ahead would be thrown away each time.
                max_partition_fetch_bytes=256 * 1024,
            )
        begins, ends = self._reader.begin_offsets(), self._reader.end_offsets()
        for (_, partition), end in ends.items():
            first = min((offset for p, offset in places if p == partition), default=end)
            if first < begins[ENTITY, partition]:
                raise deleted(self._config, ENTITY, partition, first, begins[ENTITY, partition], needed=_REDO)
            if first > end:
                raise BrokerError(
                    f"the event at {topic_name(self._config, ENTITY)} {partition}:{first} is needed, but the log ends "
                    f"at {end}: it is another log. Start a new run under another run.name and log.namespace"
                )
            self._reader.seek(ENTITY, partition, first)
        return self._reader


def client_id(config: Config) -> str:
    """What the broker's logs call this trainer."""
    return f"trainer-{config.trainer.model_key}"


def _reader_at(config: Config, positions: dict[Position, int] | None) -> EventReader:
    positions = dict(positions or {})
    while True:
        try:
            return EventReader(
                config,
                client_id(config),
                [ENTITY],
                positions=positions,
                needed="this is where training goes on",
                choices=[SKIP],
            )
        except MissingRangeError as error:
            skip_or_raise(config, error)
            positions[ENTITY, error.partition] = error.end
