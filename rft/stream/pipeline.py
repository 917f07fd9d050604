"""The whole way of an experience: validate → deduplicate → clean → score → group → prioritise → publish.

A :class:`Pipeline` holds the state of one worker and does no I/O: events and the time go in, actions come out.
Each received event is named by exactly one outcome (a ``Publish``, a final ``DeadLetter`` or a ``Resolve``), possibly
much later; the shell acknowledges the event when that outcome is on the log, and not before.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from rft.config import ProcessorConfig
from rft.errors import DecodeError, RewardError
from rft.stream.actions import Action, DeadLetter, Publish, Received, Release, Remember, Resolve, Source, Stage
from rft.stream.clean import filter_cause
from rft.stream.combine import MISSING, combined
from rft.stream.dedupe import ReleasedGroups
from rft.stream.group import Group, Member, OpenGroups, group_cause, release, usable_rewards
from rft.stream.prioritize import Prioritizer, priority
from rft.stream.rewarding import WaitingRoom, check_reward
from rft.stream.score import Scorer, score
from rft.stream.validate import validate
from schemas.codec import decode
from schemas.events import Experience, Record, Reward, WaitingMember
from schemas.framing import SchemaLookup

R = TypeVar("R", bound=Record)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rules:
    """What a pipeline decides by."""

    config: ProcessorConfig
    scorer: Scorer
    prioritizer: Prioritizer
    max_event_bytes: int
    """Larger events are malformed."""
    writer_schemas: SchemaLookup | None = None
    """Finds schemas that events name by a registry's id, among those known already: the pipeline asks nobody."""


class Pipeline:
    """One worker's state and its decisions. Not thread-safe."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._deadline_ms = int(rules.config.group_deadline_s * 1000)
        self._max_bytes = int(rules.config.buffer_mb * 1024 * 1024)
        self._released = ReleasedGroups()
        self.groups = OpenGroups()
        self.counts: Counter[str] = Counter()
        """Since start: ``in``, ``ready``, ``filtered:<cause>``, ``duplicate``, ``late``, ``dead:<stage>``,
        ``groups``, ``expired`` (groups released at their deadline), ``early`` (for want of memory), ``forgotten``;
        ``reward:<what>`` for what became of external rewards."""
        self.room: WaitingRoom | None = None
        """Where training groups wait when external rewards are required."""
        if rules.config.external.required:
            self.room = WaitingRoom(rules.config, self._released, self.counts, rules.max_event_bytes)

    @property
    def open_groups(self) -> int:
        """Groups that wait, for members or for rewards."""
        return len(self.groups) + (0 if self.room is None else len(self.room))

    def receive(self, event: Received, now_ms: int) -> list[Action]:
        """Decide about one event.

        Args:
            now_ms: The time, in ms; a group's deadline counts from its first member's arrival.
        """
        self.counts["in"] += 1
        try:
            experience = self._decode(event, Experience)
        except Exception as error:  # whatever bytes may do to a decoder, it is the event that is at fault
            return [self._dead_letter(event, "decode", error)]
        try:
            validate(experience, event.key)
            if self.room is not None and experience.split == "train":
                self.room.check(experience)
        except DecodeError as error:
            return [self._dead_letter(event, "validate", error)]
        return self._accept(event, experience, now_ms)

    def receive_reward(self, event: Received, now_ms: int) -> list[Action]:
        """Decide about one event of ``rewards``; only when external rewards are required."""
        assert self.room is not None
        self.counts["reward:in"] += 1
        try:
            reward = self._decode(event, Reward)
        except Exception as error:  # as in ``receive``
            return [self._dead_letter(event, "decode", error, "rewards")]
        try:
            check_reward(reward, event.key)
        except DecodeError as error:
            return [self._dead_letter(event, "validate", error, "rewards")]
        return self.room.reward(event, reward, _published_at(event, now_ms), now_ms)

    def tick(self, now_ms: int) -> list[Action]:
        """Release the groups whose deadline has come."""
        due = self.groups.expired(now_ms)
        self.counts["expired"] += len(due)
        actions: list[Action] = [self._release(group, now_ms) for group in due]
        return actions if self.room is None else actions + self.room.tick(now_ms)

    def save(self) -> list[Remember]:
        """What the changelog of waiting groups does not know yet."""
        return [] if self.room is None else self.room.save()

    def conclude(self, ended: Release, found: Mapping[int, Received], now_ms: int) -> Publish:
        """The verdict on a group that has waited long enough.

        Args:
            found: The events of its experiences by offset. One that is not there is left out.
        """
        external = self._rules.config.external
        waiting = ended.waiting
        group = Group(waiting.group_id, ended.partition, waiting.group_size, "train", 0)
        for one in waiting.members:
            if one.offset in found:
                reward, rewards, cause = combined(one, external, bool(self._rules.config.rewards))
                experience = self._decode(found[one.offset], Experience)
                member = Member(experience, one.offset, one.size_bytes, cause, reward, rewards)
                group.members[experience.experience_id] = member
        missing = any(member.cause == MISSING for member in group.members.values())
        whole = MISSING if missing and external.on_missing == "discard" else group_cause(group, self._rules.config)
        return self._publish(group, whole, now_ms)

    def withdraw(self, unpublished: Iterable[Release]) -> None:
        """These were not published and will not be: their partitions were taken away."""
        for one in unpublished:
            self._released.discard(one.waiting.group_id)

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget the open groups of partitions that were taken away: whoever has them next gets their events again.

        What was released stays known, so that redelivered members of it are still recognised.
        """
        lost = list(partitions)
        self.counts["forgotten"] += self.groups.forget(lost)
        if self.room is not None:
            self.room.forget(lost)

    def _decode(self, event: Received, kind: type[R]) -> R:
        return decode(
            event.value or b"",
            kind,
            max_bytes=self._rules.max_event_bytes,
            writer_schemas=self._rules.writer_schemas,
            headers=event.headers,
        )

    def _accept(self, event: Received, experience: Experience, now_ms: int) -> list[Action]:
        if self.room is not None and experience.split == "train":
            return self._wait(self.room, event, experience, now_ms)
        group = self.groups.get(event.partition, experience.group_id)
        if group is not None and experience.experience_id in group.members:
            return [self._resolve(event, "duplicate")]
        if group is None:
            repetition = self._released.repetition(experience.group_id, experience.experience_id)
            if repetition is not None:
                return [self._resolve(event, repetition)]

        member, failure = self._judge(event, experience)
        actions: list[Action] = [] if failure is None else [failure]
        group = self.groups.add(event.partition, member, now_ms + self._deadline_ms)
        if group.whole:
            actions.append(self._release(group, now_ms))
        return actions + self._shed(now_ms)

    def _wait(self, room: WaitingRoom, event: Received, experience: Experience, now_ms: int) -> list[Action]:
        repetition = self._released.repetition(experience.group_id, experience.experience_id) or room.repetition(
            event.partition, experience
        )
        if repetition is not None:
            return [self._resolve(event, repetition)]
        member, failure = self._judge(event, experience)
        actions: list[Action] = [] if failure is None else [failure]
        waiting = WaitingMember(
            experience.experience_id[len(experience.group_id) + 1 :],
            event.offset,
            member.size_bytes,
            member.cause,
            experience.kind != "rollout",
            member.reward,
            member.rewards,
            (),
        )
        return actions + room.experience(event, experience, waiting, _published_at(event, now_ms), now_ms)

    def _judge(self, event: Received, experience: Experience) -> tuple[Member, DeadLetter | None]:
        size = len(event.value or b"")
        cause = filter_cause(experience, self._rules.config)
        if cause is not None:
            return Member(experience, event.offset, size, cause), None
        try:
            reward, rewards = score(experience, self._rules.scorer)
        except RewardError as error:
            # Also a filtered member: a group whose members all fail must still be heard of, or its task never retires.
            return Member(experience, event.offset, size, "score_failed"), self._dead_letter(event, "score", error)
        return Member(experience, event.offset, size, None, reward, rewards), None

    def _shed(self, now_ms: int) -> list[Action]:
        """Release the oldest groups early when all that wait are more than may be held in memory."""
        actions: list[Action] = []
        while self.groups.size_bytes > self._max_bytes and (oldest := self.groups.oldest()) is not None:
            self.counts["early"] += 1
            actions.append(self._release(oldest, now_ms))
        return actions

    def _release(self, group: Group, now_ms: int) -> Publish:
        publish = self._publish(group, group_cause(group, self._rules.config), now_ms)
        self.groups.close(group)
        self._released.add(group.group_id, group.members, whole=group.whole)
        return publish

    def _publish(self, group: Group, cause: str | None, now_ms: int) -> Publish:
        try:
            urgency = priority(usable_rewards(group), self._rules.prioritizer)
        except RewardError as error:
            self.counts["priority_failed"] += 1
            logger.warning("group %s gets priority 0: %s", group.group_id, error)
            urgency = 0.0
        members = release(group, cause, urgency, now_ms)
        self.counts["groups"] += 1
        for member in members:
            self.counts["ready" if member.cause is None else f"filtered:{member.cause}"] += 1
        offsets = tuple(member.offset for member in group.members.values())
        return Publish(group.partition, group.group_id, members, offsets, group.size_bytes)

    def _resolve(self, event: Received, cause: Literal["duplicate", "late"]) -> Resolve:
        self.counts[cause] += 1
        return Resolve(event.partition, event.offset, cause)

    def _dead_letter(
        self, event: Received, stage: Stage, error: Exception, source: Source = "experiences"
    ) -> DeadLetter:
        self.counts[f"dead:{stage}"] += 1
        return DeadLetter(event.partition, event.offset, stage, error, final=stage != "score", source=source)


def _published_at(event: Received, now_ms: int) -> int:
    """When the event was published, so far as its producer's clock can be believed."""
    return min(event.timestamp_ms, now_ms) if event.timestamp_ms > 0 else now_ms
