"""Takes experiences from the log for a rewarder, as a member of its own consumer group."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from kafka import TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from producers.rewarder.intake import Received, is_counted
from producers.rewarder.known_rewards import KEPT, KnownRewards
from rft.config import Config
from rft.errors import BrokerError
from rft.log.access import rewarder_group
from rft.log.coordinates import LogPosition
from rft.log.events import Event
from rft.log.group_feed import GroupFeed
from rft.log.records import CountedRejects, read_record
from rft.log.topics import consumer_group
from rft.log.writer import EventWriter
from rft.telemetry.activity import ThreadPulse
from rft.telemetry.input_wait import LagLook
from schemas.events import Experience

MAX_AHEAD = KEPT // 20
"""Events beyond the oldest unfinished one that are taken. So what a restart may take again is known from the newest
rewards."""
REVOKED_FLUSH_S = 3.0
"""How long a partition that moves waits for the rewards that are under way to the broker: its next owner looks for
them."""


class ExperienceFeed(GroupFeed):
    """Takes experiences, on a thread of its own. One is finished when its reward is on the log, or needs none."""

    def __init__(
        self,
        config: Config,
        name: str,
        client_id: str,
        known: KnownRewards,
        writer: EventWriter,
        *,
        deliver: Callable[[list[Received]], None],
        saturated: Callable[[], bool],
    ) -> None:
        """Connect. ``deliver`` is called on the feed's thread. Raises BrokerError."""
        self._client_id = client_id
        self._known = known
        self._writer = writer
        self._deliver = deliver
        self._skips_known = config.rewarders[name].scope == "sample"
        """A sample with a reward still completes its group."""
        self._rejects = CountedRejects()  # the processor makes them dead letters
        self._owned: frozenset[int] = frozenset()
        self._unread: set[int] = set()
        """Partitions that came and whose rewards are not read back yet."""
        self.pulse = ThreadPulse()
        """Beats with each turn of the thread's loop."""
        self.look = LagLook(self.at_end)
        """Tells whether experiences are on the log that do not come."""
        self.skipped = 0
        """Experiences that had a reward when they came."""
        super().__init__(
            config,
            client_id,
            "experiences",
            consumer_group(config, rewarder_group(name, config.rewarders[name].revision)),
            saturated=lambda: self._ledger.uncommitted > MAX_AHEAD or saturated(),
            needed="the rewarder had not rewarded them",
            partition_assignment_strategy=[CooperativeStickyAssignor],
        )

    def owns(self, partition: int) -> bool:
        """Return whether the partition is this process's now. Thread-safe."""
        return partition in self._owned

    def finished_all(self, positions: Iterable[LogPosition]) -> None:
        """Note that these events are done, all at once. Thread-safe."""
        self._finished.extend(list(positions))

    def turned(self, *, came: bool, idle: bool) -> None:
        """Beat, and look for experiences that do not come."""
        self.pulse.beat()
        if came or idle:
            self.look.came()
        else:
            self.look.nothing_came()

    def take(self, events: list[Event]) -> None:
        """Deliver experiences that need a reward and have none."""
        if self._unread:
            partitions, self._unread = set(self._unread), set()
            self._known.read(self._config, f"{self._client_id}-rewards", partitions)
        received = []
        for event in events:
            experience = read_record(event, Experience, self._rejects.reject)
            counted = experience is not None and is_counted(experience)
            if self._skips_known and counted and experience is not None and experience.sample_id in self._known:
                self.skipped += 1
                counted = False
            if self._ledger.delivered(event.partition, event.offset, parts=int(counted)) and counted:
                assert experience is not None
                received.append(Received(event, experience))
        if received:
            self._deliver(received)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take partitions in."""
        numbers = {partition.partition for partition in assigned}
        self._unread |= numbers
        self._owned |= numbers
        await super().on_partitions_assigned(assigned)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Give partitions up, once the rewards that are under way are on the log."""
        partitions = list(revoked)
        self._owned -= {partition.partition for partition in partitions}
        if partitions:
            with contextlib.suppress(BrokerError):
                self._writer.flush(REVOKED_FLUSH_S)
        await super().on_partitions_revoked(partitions)

    async def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Give partitions up that another member has."""
        partitions = list(lost)
        self._owned -= {partition.partition for partition in partitions}
        await super().on_partitions_lost(partitions)
