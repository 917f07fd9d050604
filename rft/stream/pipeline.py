"""Decides the whole way of an experience: validate → deduplicate → clean → score → group → prioritize → publish.

A :class:`Pipeline` holds the state of one worker and does no I/O: events and the time go in, actions come out.
Each received event gets exactly one outcome, possibly much later: a ``Publish``, a final ``DeadLetter``, a ``Resolve``,
or, if its group waits for external rewards, a ``SaveWaiting`` or ``Release``. The event counts as read when that
outcome is on the log, and not before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal, Protocol

from rft.errors import DecodeError
from rft.log.dead_letters import Stage
from rft.stream.actions import Action, DeadLetter, Received, Resolve, Source
from rft.stream.clock_skew import ClockSkew
from rft.stream.dedupe import ReleasedGroups
from rft.stream.open_groups import OpenGroups
from rft.stream.pending_sample import PendingSample, make_pending_sample
from rft.stream.release import GroupPublisher
from rft.stream.rules import Rules
from rft.stream.validate import validate, validate_reward
from rft.stream.waiting_room import WaitingRoom
from schemas.events import Experience, Reward


class GroupKeeper(Protocol):
    """Collects the pending samples of groups and releases each group once."""

    def __len__(self) -> int:
        """Return the number of groups that are not released yet."""

    def check(self, partition: int, experience: Experience) -> None:
        """Check what this keeper demands of a valid experience. Raises DecodeError."""

    def repetition(self, partition: int, offset: int, experience: Experience) -> Literal["duplicate", "late"] | None:
        """Return why the experience has nothing left to do; None when it is to be added."""

    def add(self, sample: PendingSample, published_ms: int, now_ms: int) -> list[Action]:
        """Add a sample that is no repetition. ``published_ms`` is when its event was published."""

    def tick(self, now_ms: int) -> list[Action]:
        """Release the groups whose deadline has passed."""

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget the groups of revoked partitions."""


class Pipeline:
    """Holds one worker's state and makes its decisions. Not thread-safe."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.counts: Counter[str] = Counter()
        """Since start: ``in``, ``ready``, ``filtered:<cause>``, ``duplicate``, ``late``, ``dead:<stage>``,
        ``groups``, ``expired`` (groups released at their deadline), ``early`` (groups released to free memory),
        ``forgotten``; ``reward:<what>`` for external rewards; ``clock:<what>`` for timestamps of wrong clocks."""
        self.clocks = ClockSkew(self.counts, rules.max_age_ms)
        """Says when events were published."""
        released, publisher = ReleasedGroups(), GroupPublisher(rules, self.counts)
        self.groups = OpenGroups(rules.config, released, publisher, self.counts)
        self.room: WaitingRoom | None = None
        """Keeps the training groups when external rewards are required."""
        if rules.config.external.required:
            self.room = WaitingRoom(rules, released, publisher, self.counts)
        self._keepers: tuple[GroupKeeper, ...] = (self.groups,) if self.room is None else (self.groups, self.room)

    @property
    def open_groups(self) -> int:
        """Groups that wait for samples or for rewards."""
        return sum(len(keeper) for keeper in self._keepers)

    def receive(self, event: Received, now_ms: int) -> list[Action]:
        """Decide about one event of ``experiences``.

        Args:
            now_ms: The time, in ms.
        """
        self.counts["in"] += 1
        published_ms = self.clocks.published_ms("experiences", event, now_ms)
        try:
            experience = self._rules.decode(event, Experience)
        except Exception as error:  # whatever bytes do to a decoder, the event is at fault
            return [self._dead_letter(event, "decode", error)]

        keeper = self._keeper(experience)
        try:
            validate(experience, event.key)
            self._rules.check_partition(event)
            keeper.check(event.partition, experience)
        except DecodeError as error:
            return [self._dead_letter(event, "validate", error)]

        repetition = keeper.repetition(event.partition, event.offset, experience)
        if repetition is not None:
            self.counts[repetition] += 1
            return [Resolve(event.partition, event.offset, repetition)]

        sample, failure = make_pending_sample(experience, event, self._rules)
        letters: list[Action] = [] if failure is None else [self._dead_letter(event, "score", failure)]
        return letters + keeper.add(sample, published_ms, now_ms)

    def receive_reward(self, event: Received, now_ms: int) -> list[Action]:
        """Decide about one event of ``rewards``. Call this only when external rewards are required."""
        assert self.room is not None
        self.counts["reward:in"] += 1
        published_ms = self.clocks.published_ms("rewards", event, now_ms)
        try:
            reward = self._rules.decode(event, Reward)
        except Exception as error:  # as in ``receive``
            return [self._dead_letter(event, "decode", error, "rewards")]
        try:
            validate_reward(reward, event.key)
            self._rules.check_partition(event)
        except DecodeError as error:
            return [self._dead_letter(event, "validate", error, "rewards")]
        return self.room.add_reward(event, reward, published_ms, now_ms)

    def skip(self, event: Received, now_ms: int) -> list[Action]:
        """Resolve an experience whose outcome is known to be on the log: its group was released before."""
        self.counts["in"] += 1
        self.counts["duplicate"] += 1
        self.clocks.published_ms("experiences", event, now_ms)
        return [Resolve(event.partition, event.offset, "duplicate")]

    def tick(self, now_ms: int) -> list[Action]:
        """Release the groups whose deadline has passed."""
        return [action for keeper in self._keepers for action in keeper.tick(now_ms)]

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget the open groups of revoked partitions: their next owner gets the events again.

        Released groups stay known, so that redelivered samples of them are recognized.
        """
        revoked = list(partitions)
        for keeper in self._keepers:
            keeper.forget(revoked)
        self.clocks.forget(revoked)

    def _keeper(self, experience: Experience) -> GroupKeeper:
        """Choose what collects the experience's group: only training groups wait for external rewards."""
        return self.room if self.room is not None and experience.split == "train" else self.groups

    def _dead_letter(
        self, event: Received, stage: Stage, error: Exception, source: Source = "experiences"
    ) -> DeadLetter:
        self.counts[f"dead:{stage}"] += 1
        return DeadLetter(event.partition, event.offset, stage, error, final=stage != "score", source=source)
